//! The Redis protocol: an incremental, bounded decoder and an encoder for RESP2 and RESP3.
