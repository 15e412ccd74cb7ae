/** Files on the wire, for what no encoder writes. */

/** A field of a message on the wire, for files that no encoder writes. */
export const field = (number: number, content: Uint8Array | number): Uint8Array => {
  const varint = (v: number): number[] => (v < 128 ? [v] : [(v % 128) + 128, ...varint(Math.floor(v / 128))])
  return typeof content === 'number'
    ? Uint8Array.from([...varint(number * 8), ...varint(content)])
    : Uint8Array.from([...varint(number * 8 + 2), ...varint(content.length), ...content])
}
export const bytesOf = (...parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((p) => [...p]))
export const utf8 = (s: string): Uint8Array => new TextEncoder().encode(s)
export const typed = (name: string, shape: readonly (number | string)[], elem = 1): Uint8Array =>
  bytesOf(
    field(1, utf8(name)),
    field(
      2,
      field(
        1,
        bytesOf(
          field(1, elem),
          field(2, bytesOf(...shape.map((d) => field(1, typeof d === 'number' ? field(1, d) : field(2, utf8(d)))))),
        ),
      ),
    ),
  )
export const wireNode = (
  op: string,
  inputs: readonly string[],
  outputs: readonly string[],
  ...more: Uint8Array[]
): Uint8Array =>
  field(
    1,
    bytesOf(
      ...inputs.map((i) => field(1, utf8(i))),
      ...outputs.map((o) => field(2, utf8(o))),
      field(3, utf8(`node ${outputs[0]}`)),
      field(4, utf8(op)),
      ...more,
    ),
  )
/** A model from the wire form of its graph's nodes and initializers; x and y `[N, 2]` are of one element type. */
export const graphOf = (type: number, ...parts: readonly Uint8Array[]): Uint8Array =>
  bytesOf(
    field(1, 8),
    field(7, bytesOf(...parts, field(11, typed('x', ['N', 2], type)), field(12, typed('y', ['N', 2], type)))),
    field(8, field(2, 13)),
  )
export const wire = (...parts: readonly Uint8Array[]): Uint8Array => graphOf(1, ...parts)
export const wireTensor = (
  name: string,
  dims: readonly number[],
  type: number,
  ...more: readonly Uint8Array[]
): Uint8Array => field(5, bytesOf(...dims.map((d) => field(1, d)), field(2, type), ...more, field(8, utf8(name))))
export const floats = (...values: readonly number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer)
/** The floats of an attribute, and its type. */
export const floatAttribute = (values: readonly number[]): Uint8Array =>
  bytesOf(...values.map((v) => bytesOf(Uint8Array.of(7 * 8 + 5), floats(v))), field(20, 6))
