//! Bloom filters: values of their own kind, that grow by layers.
//!
//! ```text
//! value   expansion u16, error_bits u8, layers u8, layer+
//! layer   capacity u64, items u64, bytes u64, bits
//! ```
//! A layer takes `capacity` items; one more opens the next, which is `expansion` times as large and errs half
//! as often. So all layers together err no more often than they were asked to. No item is ever taken out, and
//! a bit that is set stays set: what was added is found for as long as the filter is there.
//!
//! Everything is counted in integers, and hashed by a fixed function: replicas build the same bits from the
//! same log, whatever machine they run on.

use xxhash_rust::xxh3::xxh3_128;

use crate::block::{Block, Shape};
use crate::slot_table::At;
use crate::write::{Outcome, Put, Writer};
use crate::{FilterField, FilterForm, FilterLayout, OpError, Reply};

/// How many layers a filter may have: each is looked at for every item. RedisBloom has the same limit.
const LAYERS_MAX: usize = 32;
const HEAD_BYTES: usize = 4;
const LAYER_HEAD_BYTES: usize = 24;
const LAYERS_AT: usize = 3;
/// Bits for each item and each halving of the error: 1 / ln 2, rounded up.
const BITS_PER_HALVING: (u128, u128) = (1443, 1000);

impl FilterLayout {
    /// The largest `error_bits`.
    pub const ERROR_BITS_MAX: u8 = 40;
    /// The largest `capacity`.
    pub const CAPACITY_MAX: u32 = 1 << 30;

    /// What `BF.ADD` makes where nothing is: 100 items, an error of 1 %, each layer twice the one before.
    /// RedisBloom has the same.
    pub const DEFAULT: Self = Self { capacity: 100, error_bits: 7, expansion: 2 };
}

/// A filter to be read.
#[derive(Clone, Copy)]
pub(crate) struct Filter<'a> {
    expansion: u16,
    error_bits: u8,
    layers_count: usize,
    layers: &'a [u8],
}

#[derive(Clone, Copy)]
struct Layer<'a> {
    capacity: u64,
    items: u64,
    /// How many places each item sets.
    hashes: u32,
    bits: &'a [u8],
}

impl<'a> Filter<'a> {
    /// `None` if the value is not laid out as one.
    pub(crate) fn parse(value: &'a [u8]) -> Option<Self> {
        let (head, layers) = value.split_first_chunk::<HEAD_BYTES>()?;
        let [low, high, error_bits, layers_count] = *head;
        let expansion = u16::from_le_bytes([low, high]);
        let filter = Self { expansion, error_bits, layers_count: layers_count.into(), layers };
        let (mut layers_read, mut bytes_read) = (0, 0);
        for layer in filter.layers() {
            let is_sound =
                !layer.bits.is_empty() && layer.capacity > 0 && layer.items <= layer.capacity;
            layers_read += usize::from(is_sound);
            bytes_read += LAYER_HEAD_BYTES + layer.bits.len();
        }
        let is_sound = (1..=FilterLayout::ERROR_BITS_MAX).contains(&error_bits)
            && (1..=LAYERS_MAX).contains(&filter.layers_count)
            && (layers_read, bytes_read) == (filter.layers_count, layers.len());
        is_sound.then_some(filter)
    }

    /// Whether the item may have been added. Never wrong about one that was.
    pub(crate) fn has(self, item: &[u8]) -> bool {
        let hash = ItemHash::of(item);
        self.layers().any(|layer| layer.has(hash))
    }

    pub(crate) fn field(self, field: FilterField) -> Reply<'static> {
        let number = |number: u64| Reply::Int(i64::try_from(number).unwrap_or(i64::MAX));
        match field {
            FilterField::Capacity => {
                number(self.layers().fold(0, |sum, it| sum.saturating_add(it.capacity)))
            }
            FilterField::Size => number((HEAD_BYTES + self.layers.len()) as u64),
            FilterField::Filters => number(self.layers_count as u64),
            FilterField::Items => {
                number(self.layers().fold(0, |sum, it| sum.saturating_add(it.items)))
            }
            FilterField::Expansion if self.expansion == 0 => Reply::Nil,
            FilterField::Expansion => number(self.expansion.into()),
        }
    }

    /// As RedisBloom names and orders them.
    pub(crate) fn info(self) -> Reply<'static> {
        let fields = [
            ("Capacity", FilterField::Capacity),
            ("Size", FilterField::Size),
            ("Number of filters", FilterField::Filters),
            ("Number of items inserted", FilterField::Items),
            ("Expansion rate", FilterField::Expansion),
        ];
        Reply::Map(fields.map(|(name, field)| (name, self.field(field))).into())
    }

    /// The layers in their order, up to the first that is cut short.
    fn layers(self) -> impl Iterator<Item = Layer<'a>> {
        let mut rest = self.layers;
        let numbers = 0..self.layers_count;
        numbers.map_while(move |number| {
            let (head, after) = rest.split_first_chunk::<LAYER_HEAD_BYTES>()?;
            let (fields, _) = head.as_chunks::<8>();
            let [capacity, items, bytes] = [0, 1, 2].map(|at| u64::from_le_bytes(fields[at]));
            let (bits, after) = after.split_at_checked(usize::try_from(bytes).ok()?)?;
            rest = after;
            let hashes = hashes_of(self.expansion, self.error_bits, number);
            Some(Layer { capacity, items, hashes, bits })
        })
    }

    /// Where the last layer begins in the value.
    fn last_at(self) -> usize {
        let before = self.layers().take(self.layers_count - 1);
        HEAD_BYTES + before.map(|it| LAYER_HEAD_BYTES + it.bits.len()).sum::<usize>()
    }

    fn last(self) -> Layer<'a> {
        self.layers().last().expect("a filter has a layer")
    }

    /// How large the next layer is, if there is to be one.
    fn next_layer(self) -> Result<(u64, usize), OpError> {
        if self.expansion == 0 {
            return Err(OpError::FilterFull);
        }
        if self.layers_count == LAYERS_MAX {
            return Err(OpError::FilterTooLarge);
        }
        let capacity = self.last().capacity.saturating_mul(self.expansion.into());
        let bytes =
            layer_bytes(capacity, hashes_of(self.expansion, self.error_bits, self.layers_count));
        Ok((capacity, bytes.ok_or(OpError::FilterTooLarge)?))
    }
}

impl Layer<'_> {
    fn has(self, hash: ItemHash) -> bool {
        let mut places = hash.places(self.hashes, self.bits.len());
        places.all(|place| self.bits[place / 8] & (1 << (place % 8)) != 0)
    }
}

/// Two hashes, from which all places follow: Kirsch and Mitzenmacher, "Less Hashing, Same Performance", with
/// the third term of their section 5, without which many places would repeat.
#[derive(Clone, Copy)]
struct ItemHash(u64, u64);

impl ItemHash {
    fn of(item: &[u8]) -> Self {
        let hash = xxh3_128(item);
        Self(hash as u64, (hash >> 64) as u64)
    }

    /// Places in so many bytes of bits.
    fn places(self, count: u32, bytes: usize) -> impl Iterator<Item = usize> {
        let Self(mut at, mut step) = self;
        let bits = bytes as u128 * 8;
        (0..count).map(move |number| {
            let place = ((u128::from(at) * bits) >> 64) as usize;
            at = at.wrapping_add(step);
            step = step.wrapping_add(number.into());
            place
        })
    }
}

/// How many places an item sets in a layer. The first layer of a filter that grows errs half as often as the
/// filter may, each further one half as often again: the sum stays below.
fn hashes_of(expansion: u16, error_bits: u8, layer: usize) -> u32 {
    let halvings = if expansion == 0 { 0 } else { 1 + layer as u32 };
    u32::from(error_bits) + halvings
}

/// Bytes of bits for so many items. `None`: more than can be addressed.
fn layer_bytes(capacity: u64, hashes: u32) -> Option<usize> {
    let (numerator, denominator) = BITS_PER_HALVING;
    let bits = u128::from(capacity) * u128::from(hashes) * numerator;
    usize::try_from(bits.div_ceil(denominator * 8)).ok()
}

fn layer_head(capacity: u64, bytes: usize) -> [u8; LAYER_HEAD_BYTES] {
    let mut head = [0; LAYER_HEAD_BYTES];
    head[..8].copy_from_slice(&capacity.to_le_bytes());
    head[16..].copy_from_slice(&(bytes as u64).to_le_bytes());
    head
}

impl Writer<'_> {
    pub(crate) fn reserve_filter(&mut self, key: &[u8], layout: FilterLayout) -> Outcome {
        let spot = self.spot(key);
        match spot.at.map(|at| self.table.block(at).shape()) {
            Some(Shape::Filter) => return Err(OpError::FilterExists),
            Some(Shape::Whole | Shape::Grown | Shape::Negative) => return Err(OpError::WrongType),
            None => {}
        }
        let hashes = hashes_of(layout.expansion, layout.error_bits, 0);
        let bytes = layer_bytes(layout.capacity.into(), hashes);
        let bytes = bytes.ok_or(OpError::FilterTooLarge)?;
        self.check_filter(HEAD_BYTES, bytes)?;
        let [low, high] = layout.expansion.to_le_bytes();
        let mut value = vec![low, high, layout.error_bits, 1];
        value.extend(layer_head(layout.capacity.into(), bytes));
        value.resize(value.len() + bytes, 0);
        let (deadline, extra) = (None, crate::extra::Extra::NONE);
        self.put(spot, Put { value: &value, deadline, shape: Shape::Filter, extra });
        Ok(Reply::Ok)
    }

    /// Items behind the first that does not fit are not added. As RedisBloom has it: those before stay.
    pub(crate) fn add_to_filter(
        &mut self,
        key: &[u8],
        items: &[&[u8]],
        form: FilterForm,
    ) -> Outcome {
        if self.spot(key).at.is_none() {
            self.reserve_filter(key, FilterLayout::DEFAULT)?;
        }
        let spot = self.spot(key);
        let at = spot.at.expect("it was there, or was made");
        if self.table.block(at).shape() != Shape::Filter {
            return Err(OpError::WrongType);
        }
        let mut answers = Vec::with_capacity(items.len());
        for item in items {
            let answer = self.add_item(at, item);
            answers.push(answer.map_or_else(Reply::Error, Reply::Bool));
            if answer.is_err() {
                break;
            }
        }
        if answers.contains(&Reply::Bool(true)) {
            self.modify(spot, at, |_| {});
        }
        match form {
            FilterForm::One => Ok(answers.pop().unwrap_or(Reply::Bool(false))),
            FilterForm::Many => Ok(Reply::Tuple(answers)),
        }
    }

    /// Whether the item was new.
    fn add_item(&mut self, at: At, item: &[u8]) -> Result<bool, OpError> {
        let hash = ItemHash::of(item);
        let filter = filter_of(self.table.block(at));
        if filter.layers().any(|layer| layer.has(hash)) {
            return Ok(false);
        }
        let last = filter.last();
        if last.items >= last.capacity {
            let (capacity, bytes) = filter.next_layer()?;
            self.check_filter(self.table.block(at).value_len(), bytes)?;
            self.table.modify(at, |block| {
                block.extend_value(&layer_head(capacity, bytes), bytes);
                block.value_mut()[LAYERS_AT] += 1;
            });
        }
        let filter = filter_of(self.table.block(at));
        let (last, last_at) = (filter.last(), filter.last_at());
        let (hashes, items) = (last.hashes, last.items + 1);
        self.table.modify(at, |block| {
            let layer = &mut block.value_mut()[last_at..];
            layer[8..16].copy_from_slice(&items.to_le_bytes());
            let bits = &mut layer[LAYER_HEAD_BYTES..];
            hash.places(hashes, bits.len()).for_each(|it| bits[it / 8] |= 1 << (it % 8));
        });
        Ok(true)
    }

    fn check_filter(&self, before: usize, bytes: usize) -> Result<(), OpError> {
        let length = before.checked_add(LAYER_HEAD_BYTES).and_then(|sum| sum.checked_add(bytes));
        let fits = length.is_some_and(|length| length <= self.value_bytes_max);
        if fits { Ok(()) } else { Err(OpError::FilterTooLarge) }
    }
}

/// The filter in an entry that has one.
pub(crate) fn filter_of(block: &Block) -> Filter<'_> {
    Filter::parse(block.value()).expect("filters are made here, and checked where they come in")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_an_item_are_many_and_lie_within() {
        for number in 0..100_u32 {
            let hash = ItemHash::of(&number.to_le_bytes());
            let mut places: Vec<_> = hash.places(30, 12_500).collect();
            assert!(places.iter().all(|&place| place < 100_000));
            places.sort_unstable();
            places.dedup();
            assert!(places.len() >= 28, "{number}: {}", places.len());
        }
    }

    #[test]
    fn what_is_cut_short_or_says_too_much_is_no_filter() {
        let mut value = vec![2, 0, 7, 1];
        value.extend(layer_head(10, 3));
        value.extend([0; 3]);
        assert!(Filter::parse(&value).is_some());
        for len in 0..value.len() {
            assert!(Filter::parse(&value[..len]).is_none(), "{len}");
        }
        for (at, byte) in [(2, 0), (2, 41), (3, 0), (3, 2), (3, 33), (12, 11), (20, 0), (20, 4)] {
            let mut wrong = value.clone();
            wrong[at] = byte;
            assert!(Filter::parse(&wrong).is_none(), "{byte} at {at}");
        }
    }
}
