import type { Property } from './property.ts'

/** A counterexample in decimals: the inputs of all networks, and the outputs (hidden values among them) in the order of the declarations. */
export interface Decimals {
  readonly x: readonly string[]
  readonly y: readonly string[]
}

/** A counterexample as VNN-COMP wants it: `((X_0 0.1)\n (X_1 0.2)\n (Y_0 3))`. */
export const showCounterexample = ({ x, y }: Decimals): string =>
  `(${[...x.map((v, i) => `(X_${i} ${v})`), ...y.map((v, i) => `(Y_${i} ${v})`)].join('\n ')})`

/** The decimals of each declared tensor, in order. */
export const valuesOf = ({ networks }: Property, { x, y }: Decimals) =>
  networks.flatMap(({ tensors }) =>
    tensors.map((t) => ({
      tensor: t,
      shape: t.shape ?? [t.size],
      values: (t.kind === 'input' ? x : y).slice(t.first, t.first + t.size),
    })),
  )

/** A counterexample as VNN-LIB 2.0 has it: name, type and shape of each tensor, and then its elements, one a line. */
export const showAssignment = (property: Property, decimals: Decimals): string =>
  valuesOf(property, decimals)
    .flatMap(({ tensor: { name, type }, shape, values }) => [`${name} ${type} [${shape.join(',')}]`, ...values])
    .join('\n')

const varint = (n: number): readonly number[] => (n < 128 ? [n] : [128 + (n % 128), ...varint(Math.floor(n / 128))])

/** A tensor as a serialized ONNX TensorProto: float32 for that type, float64 for real numbers, which are rounded to it. */
export const tensorProto = (
  name: string,
  type: Property['type'],
  shape: readonly number[],
  values: readonly string[],
): Uint8Array => {
  const numbers = values.map(Number)
  const data = type === 'float32' ? Float32Array.from(numbers) : Float64Array.from(numbers)
  const raw = new Uint8Array(data.buffer)
  const text = new TextEncoder().encode(name)
  const [DIMS, TYPE, NAME, RAW] = [0x08, 0x10, 0x42, 0x4a]
  const head = [
    ...shape.flatMap((d) => [DIMS, ...varint(d)]),
    ...[TYPE, type === 'float32' ? 1 : 11],
    ...[NAME, ...varint(text.length), ...text],
    ...[RAW, ...varint(raw.length)],
  ]
  const out = new Uint8Array(head.length + raw.length)
  out.set(head)
  out.set(raw, head.length)
  return out
}
