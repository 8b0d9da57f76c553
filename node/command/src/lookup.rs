//! From a request's first words to the entry in the table. Allocates only to say that there is none.

use scatterhoard_resp::Args;

use crate::{
    CommandError, CommandSpec, HelpTopic,
    error::{ECHO_CHARS_MAX, printable},
    grammar::refused_subcommand,
    table::ALL,
};

/// The entry for a request: that of the subcommand, where there are some.
///
/// This is what has to be known before anything else: whether the command exists, whether it has as many
/// arguments as it takes, who may use it, and under which name to count it.
///
/// # Errors
/// Unknown commands and subcommands, and a wrong number of arguments.
pub fn resolve(args: Args<'_>) -> Result<&'static CommandSpec, CommandError> {
    let Some(spec) = resolve_quietly(args) else {
        return Err(unknown(args));
    };
    if spec.accepts(args.len()) { Ok(spec) } else { Err(CommandError::WrongArity(spec.name)) }
}

/// The entry for a request with any number of arguments, if there is one. A command that needs a
/// subcommand and stands alone has its own.
pub(crate) fn resolve_quietly(args: Args<'_>) -> Option<&'static CommandSpec> {
    let command = find(args.get(0)?)?;
    match args.get(1) {
        Some(word) if !command.subcommands.is_empty() => subcommand(command, word),
        Some(_) | None => Some(command),
    }
}

/// Why there is no entry.
#[cold]
fn unknown(args: Args<'_>) -> CommandError {
    match (args.get(0).and_then(find).and_then(HelpTopic::of), args.get(1)) {
        (Some(topic), Some(word)) => refused_subcommand(topic, word).unwrap_or_else(|| {
            CommandError::UnknownSubcommand { name: printable(word, ECHO_CHARS_MAX), topic }
        }),
        (Some(_) | None, _) => CommandError::unknown_command(args.iter()),
    }
}

/// The command, in any case of letters.
pub(crate) fn find(name: &[u8]) -> Option<&'static CommandSpec> {
    let packed = pack(name)?;
    let mut place = hash(packed);
    loop {
        match INDEX[place] {
            VACANT => return None,
            found => {
                let spec = ALL[usize::from(found)];
                // Packing pads with zeros, so a name may differ from another in its length alone.
                if PACKED[usize::from(found)] == packed && spec.name.len() == name.len() {
                    return Some(spec);
                }
            }
        }
        place = (place + 1) % INDEX.len();
    }
}

/// The subcommand, in any case of letters.
pub(crate) fn subcommand(command: &CommandSpec, word: &[u8]) -> Option<&'static CommandSpec> {
    command.subcommands.iter().find(|spec| last_word(spec).as_bytes().eq_ignore_ascii_case(word))
}

/// The command or subcommand with this full name, such as `client|kill`, in any case of letters.
pub(crate) fn find_full(name: &[u8]) -> Option<&'static CommandSpec> {
    match name.iter().position(|&byte| byte == b'|') {
        None => find(name),
        Some(bar) => subcommand(find(&name[..bar])?, &name[bar + 1..]),
    }
}

/// What a subcommand is called within its command.
pub(crate) fn last_word(spec: &CommandSpec) -> &'static str {
    spec.name.rsplit_once('|').map_or(spec.name, |(_, word)| word)
}

/// The longest name of a command.
const NAME_BYTES_MAX: usize = 16;

/// Four places for a command at most, so that few share one.
const INDEX_PLACES: usize = 256;

const VACANT: u8 = u8::MAX;

const _: () = assert!(ALL.len() < VACANT as usize, "every command has a number");
const _: () = assert!(ALL.len() * 2 <= INDEX_PLACES, "a search ends soon");

/// The packed name of each command.
static PACKED: [u128; ALL.len()] = {
    let mut packed = [0; ALL.len()];
    let mut number = 0;
    while number < packed.len() {
        let name = ALL[number].name.as_bytes();
        assert!(name.len() <= NAME_BYTES_MAX, "every name can be packed");
        let mut byte = 0;
        while byte < name.len() {
            packed[number] |= (name[byte] as u128) << (8 * byte);
            byte += 1;
        }
        number += 1;
    }
    packed
};

/// From the hash of a packed name to the number of the command; the next vacant place where it is taken.
static INDEX: [u8; INDEX_PLACES] = {
    let mut index = [VACANT; INDEX_PLACES];
    let mut number = 0;
    while number < PACKED.len() {
        let mut place = hash(PACKED[number]);
        while index[place] != VACANT {
            place = (place + 1) % INDEX_PLACES;
        }
        index[place] = number as u8;
        number += 1;
    }
    index
};

/// The name in lower case as one number, the first byte lowest. `None`: too long for any command.
fn pack(name: &[u8]) -> Option<u128> {
    let mut bytes = [0; NAME_BYTES_MAX];
    bytes.get_mut(..name.len())?.copy_from_slice(name);
    Some(to_lowercase(u128::from_le_bytes(bytes)))
}

/// ASCII letters in lower case, sixteen at once.
const fn to_lowercase(bytes: u128) -> u128 {
    const ONES: u128 = u128::MAX / 0xff;
    let sevens = bytes & (ONES * 0x7f);
    // Carries into the top bit of each byte: from `A` on, and from past `Z` on.
    let from_a = sevens + ONES * (0x80 - b'A' as u128);
    let past_z = sevens + ONES * (0x7f - b'Z' as u128);
    let upper = (from_a ^ past_z) & !bytes & (ONES * 0x80);
    bytes | (upper >> 2)
}

/// `[0, INDEX_PLACES)`. Fibonacci hashing: the top bits of a product with an odd number near 2^64/φ.
const fn hash(packed: u128) -> usize {
    let folded = packed as u64 ^ (packed >> 64) as u64;
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - INDEX_PLACES.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_become_lowercase_and_nothing_else_changes() {
        for byte in 0..=u8::MAX {
            let all = u128::from_le_bytes([byte; 16]);
            assert_eq!(to_lowercase(all).to_le_bytes(), [byte.to_ascii_lowercase(); 16]);
        }
    }
}
