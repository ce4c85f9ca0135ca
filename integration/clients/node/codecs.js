// kafkajs brings gzip; the other codecs are plugged in from other packages.
import kafkajs from 'kafkajs'
import snappy from 'kafkajs-snappy'
import lz4 from 'lz4-napi'
import zstd from 'zstd-codec'

const { CompressionTypes, CompressionCodecs } = kafkajs

export const TYPES = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
}

export async function plugIn() {
  // Who compresses as a stream, as Java does, does not write the size into the frame: only the streaming side reads that.
  const [simple, streaming] = await new Promise((resolve) =>
    zstd.ZstdCodec.run((codec) => resolve([new codec.Simple(), new codec.Streaming()])))
  CompressionCodecs[CompressionTypes.Snappy] = snappy
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: async (encoder) => lz4.compressFrame(encoder.buffer),
    decompress: async (bytes) => lz4.decompressFrame(bytes),
  })
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: async (encoder) => Buffer.from(simple.compress(encoder.buffer, 3)),
    decompress: async (bytes) => Buffer.from(streaming.decompress(bytes)),
  })
}
