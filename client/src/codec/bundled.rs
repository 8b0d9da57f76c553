//! The codecs that come with the library.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, CodecError, CodecId};

/// [MessagePack](https://msgpack.org), with the names of fields: fields may be added, if they have a default, and
/// removed while there are values of the older type.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessagePack;

/// JSON, for what people or other languages should read as well.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

/// bincode 2 in its standard configuration: short and fast, without names and types. After any change of the type
/// the bytes mean something else, and may happen to be another value; use another prefix of keys then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bincode;

/// Bytes and text as they are. [`Bytes`] are not copied when they are decoded, unless they were compressed.
///
/// ```
/// use scatterhoard_client::codec::{Format, Raw};
///
/// # fn main() -> Result<(), scatterhoard_client::codec::CodecError> {
/// let format = Format::<String>::new(Raw);
/// assert_eq!(format.decode(&format.encode(&"hello".to_owned())?)?, "hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

/// How deep values may lie in each other, as in JSON: each level takes a part of the stack.
const DEPTH_MAX: usize = 128;
/// What bincode allocates at most for what has its length before it: as much as a value may have.
const BINCODE_BYTES_MAX: usize = super::Format::<()>::BYTES_MAX as usize;

impl<V: Serialize + DeserializeOwned> Codec<V> for MessagePack {
    fn id(&self) -> CodecId {
        CodecId::MESSAGE_PACK
    }

    fn encode(&self, value: &V, into: &mut Vec<u8>) -> Result<(), CodecError> {
        rmp_serde::encode::write_named(into, value).map_err(CodecError::encode)
    }

    fn decode(&self, body: Bytes) -> Result<V, CodecError> {
        let mut rest = &body[..];
        let mut reader = rmp_serde::Deserializer::new(&mut rest);
        reader.set_max_depth(DEPTH_MAX);
        let value = V::deserialize(&mut reader).map_err(CodecError::decode)?;
        whole(value, rest.len())
    }
}

impl<V: Serialize + DeserializeOwned> Codec<V> for Json {
    fn id(&self) -> CodecId {
        CodecId::JSON
    }

    fn encode(&self, value: &V, into: &mut Vec<u8>) -> Result<(), CodecError> {
        serde_json::to_writer(into, value).map_err(CodecError::encode)
    }

    fn decode(&self, body: Bytes) -> Result<V, CodecError> {
        serde_json::from_slice(&body).map_err(CodecError::decode)
    }
}

impl<V: Serialize + DeserializeOwned> Codec<V> for Bincode {
    fn id(&self) -> CodecId {
        CodecId::BINCODE
    }

    fn encode(&self, value: &V, into: &mut Vec<u8>) -> Result<(), CodecError> {
        let config = bincode::config::standard();
        bincode::serde::encode_into_std_write(value, into, config).map_err(CodecError::encode)?;
        Ok(())
    }

    fn decode(&self, body: Bytes) -> Result<V, CodecError> {
        let config = bincode::config::standard().with_limit::<BINCODE_BYTES_MAX>();
        let decoded = bincode::serde::decode_from_slice(&body, config);
        let (value, read_bytes) = decoded.map_err(CodecError::decode)?;
        whole(value, body.len() - read_bytes)
    }
}

impl Codec<Bytes> for Raw {
    fn id(&self) -> CodecId {
        CodecId::RAW
    }

    fn encode(&self, value: &Bytes, into: &mut Vec<u8>) -> Result<(), CodecError> {
        into.extend_from_slice(value);
        Ok(())
    }

    fn decode(&self, body: Bytes) -> Result<Bytes, CodecError> {
        Ok(body)
    }
}

impl Codec<Vec<u8>> for Raw {
    fn id(&self) -> CodecId {
        CodecId::RAW
    }

    fn encode(&self, value: &Vec<u8>, into: &mut Vec<u8>) -> Result<(), CodecError> {
        into.extend_from_slice(value);
        Ok(())
    }

    fn decode(&self, body: Bytes) -> Result<Vec<u8>, CodecError> {
        Ok(body.into())
    }
}

impl Codec<String> for Raw {
    fn id(&self) -> CodecId {
        CodecId::RAW
    }

    fn encode(&self, value: &String, into: &mut Vec<u8>) -> Result<(), CodecError> {
        into.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn decode(&self, body: Bytes) -> Result<String, CodecError> {
        String::from_utf8(body.into()).map_err(CodecError::decode)
    }
}

/// The value, if nothing comes after it.
fn whole<V>(value: V, rest_bytes: usize) -> Result<V, CodecError> {
    match rest_bytes {
        0 => Ok(value),
        _ => Err(CodecError::decode(format!("{rest_bytes} bytes too many"))),
    }
}
