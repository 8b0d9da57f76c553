//! Arguments as `COMMAND DOCS` tells them, read out of the syntax that the table has.
//!
//! The syntax is that of Redis's documentation: words in capitals stand for themselves, others for what
//! the user gives; `[…]` is optional, `a|b` is a choice, `<…>` holds one together, `…` after something,
//! or `[something ...]` after the same, says that it may be repeated.

use crate::CommandSpec;

/// One argument, or several that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Argument {
    /// The word that announces it: `EX`.
    pub(crate) token: Option<&'static str>,
    pub(crate) kind: ArgumentKind,
    pub(crate) optional: bool,
    pub(crate) repeated: bool,
    /// Each time with its token, if it has one.
    pub(crate) repeats_token: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ArgumentKind {
    /// Nothing besides the token.
    Token,
    /// Something that the user gives, by what it is called.
    Value(&'static str),
    /// Either of these.
    Choice(Vec<Argument>),
    /// All of these.
    Block(Vec<Argument>),
}

/// The arguments of a command; none if a subcommand comes first.
pub(crate) fn arguments_of(spec: &CommandSpec) -> Vec<Argument> {
    if spec.subcommands.is_empty() { Reader { rest: spec.syntax }.sequence() } else { Vec::new() }
}

impl Argument {
    const fn of(kind: ArgumentKind) -> Self {
        Self { token: None, kind, optional: false, repeated: false, repeats_token: false }
    }

    /// What it is called: by its value, or by its token, or by what it is made of.
    pub(crate) fn name(&self) -> String {
        match &self.kind {
            ArgumentKind::Token => self.token.unwrap_or_default().to_ascii_lowercase(),
            ArgumentKind::Value(name) => (*name).to_owned(),
            ArgumentKind::Choice(arguments) | ArgumentKind::Block(arguments) => {
                arguments.iter().map(Self::name).collect::<Vec<_>>().join("_")
            }
        }
    }
}

/// Reads syntax from the front.
struct Reader {
    rest: &'static str,
}

impl Reader {
    /// What stands up to the end of this group, one after the other.
    fn sequence(&mut self) -> Vec<Argument> {
        let mut alternatives: Vec<Vec<Argument>> = vec![Vec::new()];
        loop {
            self.rest = self.rest.trim_start();
            let last = alternatives.last_mut().expect("there is one from the start");
            if self.skip("|") {
                alternatives.push(Vec::new());
            } else if self.skip("...") {
                last.last_mut().expect("something is repeated").repeated = true;
            } else if self.rest.is_empty() || self.rest.starts_with([']', '>']) {
                break;
            } else if self.skip("[") {
                self.bracketed(last);
            } else if self.skip("<") {
                let group = one(self.sequence());
                assert!(self.skip(">"), "a group ends");
                announce_or_push(last, group);
            } else {
                announce_or_push(last, self.word());
            }
        }
        match alternatives.len() {
            1 => alternatives.remove(0),
            _ => vec![Argument::of(ArgumentKind::Choice(
                alternatives.into_iter().map(one).collect(),
            ))],
        }
    }

    /// Something optional, or what says that the arguments before it may be repeated.
    fn bracketed(&mut self, before: &mut Vec<Argument>) {
        let repeats = self
            .rest
            .split(']')
            .next()
            .is_some_and(|inner| inner.ends_with(" ...") && !inner.contains('['));
        let inner = self.sequence();
        assert!(self.skip("]"), "a bracket is closed");
        if repeats {
            // What is announced by a token is repeated without it, and without what else it announces.
            match before.last_mut().map(|last| &mut last.kind) {
                Some(ArgumentKind::Block(block)) if block.len() > inner.len() => {
                    repeat_last(block, inner.len());
                }
                Some(_) if inner.iter().any(|argument| argument.token.is_some()) => {
                    let last = before.last_mut().expect("it was looked at");
                    (last.repeated, last.repeats_token) = (true, true);
                }
                Some(_) | None => repeat_last(before, inner.len()),
            }
        } else {
            before.push(Argument { optional: true, ..one(inner) });
        }
    }

    fn word(&mut self) -> Argument {
        let end = self.rest.find([' ', '|', '[', ']', '<', '>']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if word.contains(|letter: char| letter.is_ascii_lowercase()) {
            Argument::of(ArgumentKind::Value(word))
        } else {
            Argument { token: Some(word), ..Argument::of(ArgumentKind::Token) }
        }
    }

    fn skip(&mut self, symbol: &str) -> bool {
        let rest = self.rest.strip_prefix(symbol);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

/// What follows a token belongs to it.
fn announce_or_push(before: &mut Vec<Argument>, argument: Argument) {
    let announced = argument.token.is_none();
    match before.last_mut() {
        Some(last) if announced && last.token.is_some() && !last.optional => match &mut last.kind {
            ArgumentKind::Token => *last = Argument { token: last.token, ..argument },
            ArgumentKind::Block(arguments) => arguments.push(argument),
            ArgumentKind::Value(_) | ArgumentKind::Choice(_) => {
                let first = Argument { token: None, ..last.clone() };
                last.kind = ArgumentKind::Block(vec![first, argument]);
            }
        },
        Some(_) | None => before.push(argument),
    }
}

fn repeat_last(arguments: &mut Vec<Argument>, count: usize) {
    let again = arguments.split_off(arguments.len() - count);
    arguments.push(Argument { repeated: true, ..one(again) });
}

fn one(mut arguments: Vec<Argument>) -> Argument {
    match arguments.len() {
        1 => arguments.remove(0),
        _ => Argument::of(ArgumentKind::Block(arguments)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands;

    /// Back to syntax.
    fn spelled(arguments: &[Argument]) -> String {
        arguments.iter().map(|argument| spelled_one(argument, false)).collect::<Vec<_>>().join(" ")
    }

    fn spelled_one(argument: &Argument, nested: bool) -> String {
        let inner = match &argument.kind {
            ArgumentKind::Token => String::new(),
            ArgumentKind::Value(name) => (*name).to_owned(),
            ArgumentKind::Block(arguments) => spelled(arguments),
            ArgumentKind::Choice(arguments) => {
                let choices = arguments.iter().map(|choice| spelled_one(choice, true));
                let choices = choices.collect::<Vec<_>>().join("|");
                let held = argument.token.is_some() || argument.repeated || nested;
                if held { format!("<{choices}>") } else { choices }
            }
        };
        let again = match (argument.repeated, &argument.kind) {
            (false, _) => inner.clone(),
            (true, ArgumentKind::Choice(_)) => format!("{inner} ..."),
            (true, _) if argument.repeats_token => {
                let token = argument.token.expect("it is what is repeated");
                format!("{inner} [{token} {inner} ...]")
            }
            (true, _) => format!("{inner} [{inner} ...]"),
        };
        let whole = match argument.token {
            Some(token) => format!("{token} {again}").trim_end().to_owned(),
            None => again,
        };
        if argument.optional { format!("[{whole}]") } else { whole }
    }

    #[test]
    fn what_was_read_spells_the_same() {
        for command in commands() {
            for spec in std::iter::once(command).chain(command.subcommands) {
                if spec.subcommands.is_empty() {
                    assert_eq!(spelled(&arguments_of(spec)), spec.syntax, "{}", spec.name);
                }
            }
        }
    }

    #[test]
    fn set_in_full() {
        let value = |name| Argument::of(ArgumentKind::Value(name));
        let token = |token| Argument { token: Some(token), ..Argument::of(ArgumentKind::Token) };
        let announced = |token, name| Argument { token: Some(token), ..value(name) };
        let choice =
            |choices| Argument { optional: true, ..Argument::of(ArgumentKind::Choice(choices)) };
        let spec = commands().find(|spec| spec.name == "set").expect("SET is a command");
        assert_eq!(
            arguments_of(spec),
            [
                value("key"),
                value("value"),
                choice(vec![token("NX"), token("XX")]),
                Argument { optional: true, ..token("GET") },
                choice(vec![
                    announced("EX", "seconds"),
                    announced("PX", "milliseconds"),
                    announced("EXAT", "unix-time-seconds"),
                    announced("PXAT", "unix-time-milliseconds"),
                    token("KEEPTTL"),
                ]),
            ]
        );
    }
}
