//! What can be a key, and how it becomes the name under which a store has its value.
//!
//! A name is `prefix`, a separator, and the key: `user:42`. **Two keys of one type never get one name**: numbers are
//! written in decimal, text as it is, and the parts of a tuple with `:` between them, where a `:` or a `\` inside a
//! part is written with a `\` before it. Two caches whose prefixes differ, but not their separators, have no name in
//! common, since no prefix may contain the separator.

use std::fmt::Display;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

/// What lies between the parts of a key.
const BETWEEN: u8 = b':';

/// What makes the byte behind it a part of the part.
const ESCAPE: u8 = b'\\';

/// What can be a key of a [`crate::Cache`]: numbers, text, bytes, tuples of them, whatever is shown injectively
/// ([`Shown`]), and your own types.
///
/// ```
/// use scatterhoard_client::cache::Key;
///
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct Seat {
///     row: u16,
///     letter: char,
/// }
///
/// impl Key for Seat {
///     fn write(&self, name: &mut Vec<u8>) {
///         (self.row, self.letter).write(name);
///     }
/// }
///
/// assert_eq!(Seat { row: 12, letter: 'C' }.name(), "12:C");
/// assert_eq!(("a:b", 7).name(), "a\\:b:7");
/// ```
pub trait Key: Clone + Eq + Hash + Send + Sync + 'static {
    /// Appends the key. Two keys that are not equal must not append the same; equal ones must.
    fn write(&self, name: &mut Vec<u8>);

    /// Appends the key as a part of a larger one.
    fn write_part(&self, name: &mut Vec<u8>) {
        let begin = name.len();
        self.write(name);
        if name[begin..].iter().any(|&byte| is_special(byte)) {
            let plain = name.split_off(begin);
            for byte in plain {
                if is_special(byte) {
                    name.push(ESCAPE);
                }
                name.push(byte);
            }
        }
    }

    /// The key alone, without a prefix.
    fn name(&self) -> Bytes {
        let mut name = Vec::new();
        self.write(&mut name);
        name.into()
    }
}

fn is_special(byte: u8) -> bool {
    byte == BETWEEN || byte == ESCAPE
}

macro_rules! shown_keys {
    ($($type:ty),*) => {
        $(impl Key for $type {
            fn write(&self, name: &mut Vec<u8>) {
                write_shown(self, name);
            }
        })*
    };
}

macro_rules! byte_keys {
    ($($type:ty),*) => {
        $(impl Key for $type {
            fn write(&self, name: &mut Vec<u8>) {
                name.extend_from_slice(<Self as AsRef<[u8]>>::as_ref(self));
            }
        })*
    };
}

macro_rules! str_keys {
    ($($type:ty),*) => {
        $(impl Key for $type {
            fn write(&self, name: &mut Vec<u8>) {
                name.extend_from_slice(self.as_bytes());
            }
        })*
    };
}

macro_rules! tuple_keys {
    ($($first:ident $($other:ident)*),*) => {
        $(impl<$first: Key, $($other: Key),*> Key for ($first, $($other),*) {
            #[expect(non_snake_case, reason = "each part is named as its type")]
            fn write(&self, name: &mut Vec<u8>) {
                let ($first, $($other),*) = self;
                $first.write_part(name);
                $(name.push(BETWEEN); $other.write_part(name);)*
            }
        })*
    };
}

shown_keys!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, bool, char);
byte_keys!(String, Bytes, Vec<u8>);
str_keys!(&'static str, Box<str>, Arc<str>);
tuple_keys!(A B, A B C, A B C D, A B C D E, A B C D E F);

fn write_shown(value: &impl Display, name: &mut Vec<u8>) {
    use std::io::Write as _;
    write!(name, "{value}").expect("a Vec takes all that is written to it");
}

/// A key that is written as it is shown. For identifiers such as UUIDs, of which no two look alike.
///
/// ```
/// use std::net::Ipv4Addr;
/// use scatterhoard_client::cache::{Key, Shown};
///
/// assert_eq!(Shown(Ipv4Addr::LOCALHOST).name(), "127.0.0.1");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Shown<T>(pub T);

impl<T: Display + Clone + Eq + Hash + Send + Sync + 'static> Key for Shown<T> {
    fn write(&self, name: &mut Vec<u8>) {
        write_shown(&self.0, name);
    }
}

impl<T: PartialEq> PartialEq for Shown<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T: Eq> Eq for Shown<T> {}

impl<T: Hash> Hash for Shown<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<T> Deref for Shown<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> From<T> for Shown<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

/// What all names of one cache begin with.
#[derive(Clone, Debug)]
pub(crate) struct Prefix(Vec<u8>);

impl Prefix {
    /// `None` if the prefix contains the separator: then another cache might have the same names.
    pub(crate) fn parse(prefix: &str, separator: char) -> Option<Self> {
        let valid = !prefix.contains(separator);
        valid.then(|| Self(format!("{prefix}{separator}").into_bytes()))
    }

    pub(crate) fn name(&self, key: &impl Key) -> Bytes {
        let mut name = Vec::with_capacity(self.0.len() + 20);
        name.extend_from_slice(&self.0);
        key.write(&mut name);
        name.into()
    }

    /// A name without the prefix; `None` if it is not of this cache.
    pub(crate) fn strip(&self, name: &Bytes) -> Option<Bytes> {
        name.starts_with(&self.0).then(|| name.slice(self.0.len()..))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Short text of what could go wrong.
    fn text() -> impl Strategy<Value = String> {
        proptest::collection::vec(prop_oneof![Just(':'), Just('\\'), Just('a'), Just('1')], 0..5)
            .prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn two_keys_never_get_one_name(
            one in (text(), (text(), text())),
            other in (text(), (text(), text())),
        ) {
            prop_assert_eq!(one == other, one.name() == other.name());
        }
    }

    #[test]
    fn names_are_what_people_expect() {
        let prefix = Prefix::parse("user", ':').expect("a prefix");
        assert_eq!(prefix.name(&42_u64), "user:42");
        assert_eq!(prefix.name(&"a:b"), "user:a:b");
        assert_eq!(prefix.name(&(-1, "de", 'x')), "user:-1:de:x");
        assert_eq!(prefix.strip(&"user:42".into()), Some("42".into()));
        assert_eq!(prefix.strip(&"users:42".into()), None);
    }

    #[test]
    fn a_prefix_without_end_is_none() {
        assert!(Prefix::parse("a:b", ':').is_none());
        assert!(Prefix::parse("a:b", '/').is_some());
    }
}
