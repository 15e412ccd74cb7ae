import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'

/** Fields of the messages ModelProto, GraphProto and ValueInfoProto. */
const [GRAPH, OUTPUT, NAME] = [7, 12, 1]

/**
 * A model of bytes with nodes of it among its outputs. A message that follows another of its type is merged into it (Protocol Buffers: fields that repeat are put end to end), so that
 * a graph of nothing but outputs, put behind a model, adds those.
 */
export const withOutputs = (model: Uint8Array, nodes: readonly string[]): Uint8Array => {
  if (nodes.length === 0) return model
  const w = new BinaryWriter().tag(GRAPH, WireType.LengthDelimited).fork()
  for (const node of nodes)
    w.tag(OUTPUT, WireType.LengthDelimited).fork().tag(NAME, WireType.LengthDelimited).string(node).join()
  const more = w.join().finish()
  const out = new Uint8Array(model.length + more.length)
  out.set(model)
  out.set(more, model.length)
  return out
}
