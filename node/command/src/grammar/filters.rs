//! `BF.…`: Bloom filters, as RedisBloom spells them.

use scatterhoard_store::{FilterField, FilterForm, FilterLayout, Read, Write};

use super::{Parsed, Request, is, meaning};
use crate::{Command, CommandError, number};

pub(crate) fn reserve(request: Request<'_>) -> Parsed<'_> {
    const BAD_EXPANSION: CommandError = CommandError::Filter("ERR bad expansion");
    if request.len() > 7 {
        return Err(CommandError::WrongArity(request.spec.name));
    }
    let (error_bits, capacity) = (error_bits(request.word(2))?, capacity(request.word(3))?);
    let (mut expansion, mut is_fixed) = (None, false);
    let mut options = request.options_from(4);
    while let Some(word) = options.next() {
        if is(word, "NONSCALING") {
            is_fixed = true;
        } else if is(word, "EXPANSION") {
            let word = options.next().ok_or(CommandError::Filter("ERR no expansion"))?;
            let number = number::integer(word).ok_or(BAD_EXPANSION)?;
            let number = u16::try_from(number).ok().filter(|&number| number <= EXPANSION_MAX);
            expansion = Some(number.ok_or(EXPANSION_OUT_OF_RANGE)?);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let expansion = match (expansion, is_fixed) {
        (Some(1..), true) => {
            return Err(CommandError::Filter("Nonscaling filters cannot expand"));
        }
        (_, true) => 0,
        (expansion, false) => expansion.unwrap_or(FilterLayout::DEFAULT.expansion),
    };
    let layout = FilterLayout { capacity, error_bits, expansion };
    Ok(Command::Write(Write::ReserveFilter { key: request.word(1), layout }))
}

/// Redis 8.
const EXPANSION_MAX: u16 = 32_768;
const EXPANSION_OUT_OF_RANGE: CommandError =
    CommandError::Filter("ERR expansion must be in the range [0, 32768]");

/// How many times an error of one half has to be halved to be no more than the one asked for. Reckoned
/// without logarithms, which differ between machines.
fn error_bits(word: &[u8]) -> Result<u8, CommandError> {
    let rate = number::float(word).ok_or(CommandError::Filter("ERR bad error rate"))?;
    if rate <= 0.0 || rate >= 1.0 {
        let text = "ERR error rate must be in the range (0.000000, 1.000000)";
        return Err(CommandError::Filter(text));
    }
    let (mut bits, mut reached) = (1, 0.5);
    while reached > rate {
        if bits == FilterLayout::ERROR_BITS_MAX {
            return Err(CommandError::Filter("ERR error rate is too small, the least is 1e-12"));
        }
        bits += 1;
        reached *= 0.5;
    }
    Ok(bits)
}

fn capacity(word: &[u8]) -> Result<u32, CommandError> {
    let number = number::integer(word).ok_or(CommandError::Filter("ERR bad capacity"))?;
    let number = u32::try_from(number).ok();
    let number = number.filter(|number| (1..=FilterLayout::CAPACITY_MAX).contains(number));
    let text = "ERR capacity must be in the range [1, 1073741824]";
    number.ok_or(CommandError::Filter(text))
}

pub(crate) fn add(request: Request<'_>) -> Parsed<'_> {
    add_items(request, FilterForm::One)
}

pub(crate) fn madd(request: Request<'_>) -> Parsed<'_> {
    add_items(request, FilterForm::Many)
}

fn add_items(request: Request<'_>, form: FilterForm) -> Parsed<'_> {
    let (key, items) = (request.word(1), request.words_from(2));
    Ok(Command::Write(Write::AddToFilter { key, items, form }))
}

pub(crate) fn exists(request: Request<'_>) -> Parsed<'_> {
    look_for(request, FilterForm::One)
}

pub(crate) fn mexists(request: Request<'_>) -> Parsed<'_> {
    look_for(request, FilterForm::Many)
}

fn look_for(request: Request<'_>, form: FilterForm) -> Parsed<'_> {
    let (key, items) = (request.word(1), request.words_from(2));
    Ok(Command::Read(Read::InFilter { key, items, form }))
}

pub(crate) fn info(request: Request<'_>) -> Parsed<'_> {
    if request.len() > 3 {
        return Err(CommandError::WrongArity(request.spec.name));
    }
    let fields = [
        ("CAPACITY", FilterField::Capacity),
        ("SIZE", FilterField::Size),
        ("FILTERS", FilterField::Filters),
        ("ITEMS", FilterField::Items),
        ("EXPANSION", FilterField::Expansion),
    ];
    let unknown = CommandError::Filter("Invalid information value");
    let field = match request.options_from(2).next() {
        Some(word) => Some(meaning(word, &fields).ok_or(unknown)?),
        None => None,
    };
    Ok(Command::Read(Read::FilterInfo { key: request.word(1), field }))
}
