//! What is written is read again, and what is not ours is refused: never a wrong value, a panic, or much memory.

use std::collections::BTreeMap;
use std::thread;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use scatterhoard_client::codec::{
    Bincode, Codec, CodecError, CodecId, Compression, Format, Json, MessagePack, Raw,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Article {
    title: String,
    stock: Option<u64>,
    tags: Vec<String>,
    prices: BTreeMap<String, i64>,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum State {
    Draft,
    Sold { to: String },
}

fn article() -> impl Strategy<Value = Article> {
    let state = prop_oneof![Just(State::Draft), ".*".prop_map(|to| State::Sold { to })];
    let prices = btree_map(".{0,4}", any::<i64>(), 0..20);
    let parts = (".*", any::<Option<u64>>(), vec(".*", 0..20), prices, state);
    parts.prop_map(|(title, stock, tags, prices, state)| Article {
        title,
        stock,
        tags,
        prices,
        state,
    })
}

/// One of each codec, in all ways to compress.
fn formats<V: Serialize + for<'a> Deserialize<'a> + 'static>() -> Vec<Format<V>> {
    let codecs = [Format::new(MessagePack), Format::new(Json), Format::new(Bincode)];
    codecs.into_iter().flat_map(compressed).collect()
}

fn compressed<V: 'static>(format: Format<V>) -> [Format<V>; 3] {
    let zstd = Compression::Zstd { level: 3 };
    [Compression::None, zstd, Compression::Lz4]
        .map(|compression| format.clone().compressed(compression).compressed_from(16))
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_and_equal_values_become_equal_bytes(
        articles in vec(article(), 1..8),
    ) {
        for format in formats::<Article>() {
            let first: Vec<_> = articles.iter().map(|it| format.encode(it).unwrap()).collect();
            for (article, bytes) in articles.iter().zip(&first).rev() {
                // Again, after others, and in a thread where nothing was encoded before.
                prop_assert_eq!(&format.encode(article).unwrap(), bytes);
                prop_assert_eq!(&format.decode(bytes).unwrap(), article);
            }
            let elsewhere = thread::scope(|scope| {
                scope.spawn(|| format.encode(&articles[0]).unwrap()).join().unwrap()
            });
            prop_assert_eq!(&elsewhere, &first[0]);
        }
    }

    #[test]
    fn bytes_and_text_stay_what_they_are(bytes in vec(any::<u8>(), 0..300), text in ".*") {
        for format in compressed(Format::<Bytes>::new(Raw)) {
            let bytes = Bytes::from(bytes.clone());
            prop_assert_eq!(format.decode(&format.encode(&bytes).unwrap()).unwrap(), bytes);
        }
        for format in compressed(Format::<Vec<u8>>::new(Raw)) {
            prop_assert_eq!(&format.decode(&format.encode(&bytes).unwrap()).unwrap(), &bytes);
        }
        for format in compressed(Format::<String>::new(Raw)) {
            prop_assert_eq!(&format.decode(&format.encode(&text).unwrap()).unwrap(), &text);
        }
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(header in any::<u8>(), rest in vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from([vec![header], rest].concat());
        for format in formats::<Article>() {
            if let Ok(article) = format.decode(&bytes) {
                prop_assert_eq!(format.decode(&format.encode(&article).unwrap()).unwrap(), article);
            }
        }
        let _any = Format::<String>::new(Raw).decode(&bytes);
        let _any = Format::<Vec<Vec<u64>>>::new(Bincode).decode(&bytes);
        let _any = Format::<serde_json::Value>::new(MessagePack).decode(&bytes);
    }

    #[test]
    fn a_damaged_value_is_another_or_an_error(
        article in article(),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
        cut in any::<bool>(),
    ) {
        for format in formats::<Article>() {
            let mut bytes = format.encode(&article).unwrap().to_vec();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            let decoded = format.decode(&bytes.into());
            prop_assert!(!cut || decoded.is_err(), "a part of a value was taken for one");
        }
    }

    #[test]
    fn text_of_others_is_never_a_value_of_ours(text in ".+") {
        for format in formats::<String>() {
            prop_assert!(matches!(format.decode(&text.clone().into()), Err(CodecError::Foreign)));
        }
    }
}

#[test]
fn the_bytes_are_those_that_were_promised() {
    fn check(format: Format<String>, value: &str, stored: &[u8]) {
        assert_eq!(format.encode(&value.to_owned()).unwrap(), stored);
        assert_eq!(format.decode(&Bytes::copy_from_slice(stored)).unwrap(), value);
    }
    check(Format::new(MessagePack), "hello", b"\x80\xa5hello");
    check(Format::new(Json), "hello", b"\x81\"hello\"");
    check(Format::new(Bincode), "hello", b"\x82\x05hello");
    check(Format::new(Raw), "hello", b"\x83hello");
    // What others have compressed, each in its own way, is read.
    let lz4 = Bytes::from_static(b"\xa3\x28\0\0\0\x1fa\x01\0\x0fPaaaaa");
    assert_eq!(Format::<String>::new(Raw).decode(&lz4).unwrap(), "a".repeat(40));
}

#[test]
fn values_of_another_codec_or_version_are_told_apart() {
    let json = Format::<String>::new(Json).encode(&"hello".to_owned()).unwrap();
    let read = Format::<String>::new(MessagePack).decode(&json);
    let Err(CodecError::OtherCodec { found, expected }) = read else { panic!("{read:?}") };
    assert_eq!((found, expected), (CodecId::JSON, CodecId::MESSAGE_PACK));

    for header in [0, 0x7f, 0b1011_0011, 0b1100_0011] {
        let read = Format::<String>::new(Raw).decode(&Bytes::from(vec![header, 1, 2]));
        assert!(matches!(read, Err(CodecError::Foreign)), "{header:#b}: {read:?}");
    }
    let nothing = Format::<String>::new(Raw).decode(&Bytes::new());
    assert!(matches!(nothing, Err(CodecError::Foreign)), "{nothing:?}");
}

#[test]
fn what_does_not_get_shorter_is_stored_as_it_is() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::new();
    while noise.len() < 4096 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend(state.to_le_bytes());
    }
    let [plain, short @ ..] = compressed(Format::<Vec<u8>>::new(Raw));
    let stored = plain.encode(&noise).unwrap();
    for format in short {
        assert_eq!(format.encode(&noise).unwrap(), stored, "{format:?}");
        assert!(format.encode(&vec![0; 4096]).unwrap().len() < 100, "{format:?}");
        assert_eq!(format.decode(&stored).unwrap(), noise);
    }
}

#[test]
fn a_length_that_is_not_true_allocates_nothing_of_the_kind() {
    for (header, packed) in [(0x93, &b"\x28\xb5\x2f\xfd"[..]), (0xa3, &b"\x1fa\x01\0"[..])] {
        for length in [0x0100_0000u32, u32::MAX] {
            let stored = [&[header], &length.to_le_bytes()[..], packed].concat();
            let read = Format::<Vec<u8>>::new(Raw).decode(&stored.into());
            let refused =
                matches!(read, Err(CodecError::Compressed(_) | CodecError::TooLong { .. }));
            assert!(refused, "{read:?}");
        }
    }
}

#[test]
fn a_codec_believes_no_length_that_it_reads() {
    // Each says of itself that it is longer than any machine.
    let message_pack = b"\x80\xdb\xff\xff\xff\xffhello";
    assert!(Format::<String>::default().decode(&Bytes::from_static(message_pack)).is_err());
    let bincode = Bytes::from_static(b"\x82\xfd\xff\xff\xff\xff\xff\xff\xff\x7fhello");
    assert!(Format::<String>::new(Bincode).decode(&bincode).is_err());
    assert!(Format::<Vec<u64>>::new(Bincode).decode(&bincode).is_err());
}

#[test]
fn what_lies_too_deep_is_an_error_and_no_overflow_of_the_stack() {
    fn check(codec: impl Codec<serde_json::Value>, header: u8, opened: u8) {
        let stored = [vec![header], vec![opened; 1_000_000]].concat();
        assert!(Format::new(codec).decode(&stored.into()).is_err());
    }
    check(MessagePack, 0x80, 0x91);
    check(Json, 0x81, b'[');
}

#[test]
fn what_is_too_long_is_neither_encoded_nor_decoded() {
    let text = "la ".repeat(100);
    for format in compressed(Format::<String>::new(Raw)) {
        let stored = format.encode(&text).unwrap();
        let short = format.bytes_max(299);
        let (encoded, decoded) = (short.encode(&text), short.decode(&stored));
        assert!(matches!(encoded, Err(CodecError::TooLong { bytes: 300, bytes_max: 299 })));
        assert!(matches!(decoded, Err(CodecError::TooLong { bytes: 300, bytes_max: 299 })));
    }
}

#[test]
fn a_field_may_come_and_another_go() {
    #[derive(Serialize, Deserialize)]
    struct Old {
        name: String,
        gone: u8,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        #[serde(default)]
        come: Vec<u8>,
        name: String,
    }
    let old = Old { name: "Ada".to_owned(), gone: 1 };
    let new = New { name: "Ada".to_owned(), come: Vec::new() };
    let stored = Format::<Old>::default().encode(&old).unwrap();
    assert_eq!(Format::<New>::default().decode(&stored).unwrap(), new);
    let stored = Format::<Old>::new(Json).encode(&old).unwrap();
    assert_eq!(Format::<New>::new(Json).decode(&stored).unwrap(), new);
}
