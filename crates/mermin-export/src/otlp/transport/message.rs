//! The body of a request as it goes over the network: compressed, with gRPC's five bytes in front.

use super::chunks::Chunks;
use crate::otlp::config::{OtlpCompression, OtlpProtocol};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use std::io::Write;

/// zstd's level: 1 is four times as fast as gzip's and packs better.
const ZSTD_LEVEL: i32 = 1;

/// A request's body. Cloning it copies no bytes, so that a repetition costs nothing.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    parts: Vec<Bytes>,
    len: usize,
}

impl Message {
    /// Of an encoded request, in parts that follow each other.
    pub(crate) fn new(parts: Vec<Bytes>, protocol: OtlpProtocol, compression: OtlpCompression) -> Self {
        let parts = match compression {
            OtlpCompression::None => parts,
            OtlpCompression::Gzip => vec![gzip(&parts)],
            OtlpCompression::Zstd => vec![zstd(&parts)],
        };
        let parts = match protocol {
            OtlpProtocol::Http => parts,
            OtlpProtocol::Grpc => framed(parts, compression != OtlpCompression::None),
        };
        let len = parts.iter().map(Bytes::len).sum();
        Self { parts, len }
    }

    /// Bytes on the network.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn body(&self) -> Chunks {
        Chunks::new(self.parts.clone(), self.len)
    }
}

/// gRPC's frame: whether it is compressed, and the length.
fn framed(mut parts: Vec<Bytes>, compressed: bool) -> Vec<Bytes> {
    let len: usize = parts.iter().map(Bytes::len).sum();
    let len = u32::try_from(len).expect("a request is bounded by export.otlp.batch.bytes, far below 4 GiB");
    let mut front = vec![u8::from(compressed)];
    front.extend_from_slice(&len.to_be_bytes());
    parts.insert(0, Bytes::from(front));
    parts
}

fn gzip(parts: &[Bytes]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    parts.iter().try_for_each(|part| encoder.write_all(part)).expect("a Vec takes everything");
    Bytes::from(encoder.finish().expect("a Vec takes everything"))
}

fn zstd(parts: &[Bytes]) -> Bytes {
    let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL).expect("the level is a valid one");
    parts.iter().try_for_each(|part| encoder.write_all(part)).expect("a Vec takes everything");
    Bytes::from(encoder.finish().expect("a Vec takes everything"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn parts() -> Vec<Bytes> {
        vec![Bytes::from_static(b"abc"), Bytes::from(vec![b'd'; 1_000])]
    }

    fn bytes(message: &Message) -> Vec<u8> {
        let bytes = message.parts.concat();
        assert_eq!(bytes.len(), message.len());
        bytes
    }

    #[test]
    fn grpc_has_five_bytes_in_front() {
        let plain = parts().concat();
        let message = bytes(&Message::new(parts(), OtlpProtocol::Grpc, OtlpCompression::None));
        assert_eq!(message[..5], [0, 0, 0, 3, 0xeb]);
        assert_eq!(message[5..], plain);
        let packed = bytes(&Message::new(parts(), OtlpProtocol::Grpc, OtlpCompression::Gzip));
        assert_eq!((packed[0], packed[4] as usize), (1, packed.len() - 5));
        assert_eq!(bytes(&Message::new(parts(), OtlpProtocol::Http, OtlpCompression::None)), plain);
    }

    #[test]
    fn what_is_compressed_reads_back() {
        let plain = parts().concat();
        let packed = bytes(&Message::new(parts(), OtlpProtocol::Http, OtlpCompression::Gzip));
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, plain);
        let packed = bytes(&Message::new(parts(), OtlpProtocol::Http, OtlpCompression::Zstd));
        assert_eq!(zstd::decode_all(&packed[..]).unwrap(), plain);
    }
}
