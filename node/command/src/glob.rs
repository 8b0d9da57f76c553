//! Patterns as Redis matches them: `*`, `?`, `[a-c]`, `[^x]`, and `\` before what is meant literally.
//!
//! Takes at most (length of pattern × length of text) steps, whatever the pattern: clients choose it,
//! and Redis's own matcher is exponential in the number of stars.

/// A pattern. Any bytes are one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Glob<'a>(&'a [u8]);

impl<'a> Glob<'a> {
    /// The pattern spelled so.
    #[must_use]
    pub const fn new(pattern: &'a [u8]) -> Self {
        Self(pattern)
    }

    /// How it is spelled.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Whether it matches everything there is: `*`, or more stars.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|&byte| byte == b'*')
    }

    /// Whether the whole text matches.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        matches_by(self.0, text, |byte| byte)
    }

    /// Whether the whole text matches, if upper and lower case of ASCII are the same.
    #[must_use]
    pub fn matches_ignoring_case(&self, text: &[u8]) -> bool {
        matches_by(self.0, text, |byte| byte.to_ascii_lowercase())
    }
}

impl std::fmt::Debug for Glob<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Glob({})", self.0.escape_ascii())
    }
}

/// Matches greedily, and goes back to the last star where that fails. That is enough: if the text after
/// a later star can be matched at all, an earlier star need not take more than it has.
fn matches_by(pattern: &[u8], text: &[u8], fold: impl Fn(u8) -> u8) -> bool {
    let (mut at_pattern, mut at_text) = (0, 0);
    // Where the pattern goes on after the last star, and how far that star reaches by now.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at_pattern) == Some(&b'*') {
            at_pattern += 1;
            if at_pattern == pattern.len() {
                return true;
            }
            star = Some((at_pattern, at_text));
            continue;
        }
        let Some(&byte) = text.get(at_text) else {
            return at_pattern == pattern.len();
        };
        if let Some(next) = matches_one(&pattern[at_pattern..], byte, &fold) {
            at_pattern += next;
            at_text += 1;
            continue;
        }
        let Some((after_star, reach)) = &mut star else {
            return false;
        };
        *reach += 1;
        at_pattern = *after_star;
        at_text = *reach;
    }
}

/// How many bytes of the pattern match this byte, if any do. The pattern does not start with a star.
fn matches_one(pattern: &[u8], byte: u8, fold: &impl Fn(u8) -> u8) -> Option<usize> {
    let same = |expected: u8| fold(expected) == fold(byte);
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => {
            let (matched, length) = matches_class(class, fold(byte), fold);
            matched.then_some(1 + length)
        }
        [b'\\', escaped, ..] => same(*escaped).then_some(2),
        [literal, ..] => same(*literal).then_some(1),
    }
}

/// Whether the class, without its `[`, has the byte, and how long the class is. As in Redis, one that is
/// not closed ends with the pattern, and the ends of a range may stand in either order.
fn matches_class(class: &[u8], byte: u8, fold: &impl Fn(u8) -> u8) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut matched = false;
    loop {
        match class[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                matched |= fold(escaped) == byte;
                at += 2;
            }
            [first, b'-', last, ..] => {
                let (first, last) = (fold(first), fold(last));
                matched |= (first.min(last)..=first.max(last)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                matched |= fold(literal) == byte;
                at += 1;
            }
        }
    }
    (matched != negated, at)
}
