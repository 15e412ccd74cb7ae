import { raise } from '../../core/error.ts'
import { equals, show } from '../../core/shape.ts'
import type { Tensor } from '../../core/tensor.ts'
import type { AttributeValue } from './proto.ts'

/** @throws what keeps a graph from being written: `encodeOnnx` gives it as a value */
export const refuse = (x: Tensor, reason: string): never =>
  raise({
    kind: 'unsupported',
    what: `exporting ${x.op.name}(${x.inputs.map((i) => show(i.shape)).join(', ')}) to ONNX`,
    reason,
  })

/** What is known of the nodes of a graph that is written. */
export interface Facts {
  /** Whether a node depends on the input of the network, hence on the batch. */
  readonly moving: (x: Tensor) => boolean
  /** How often a node is an operand, or the output. */
  readonly uses: (x: Tensor) => number
  readonly isParameter: (x: Tensor) => boolean
  /** The batch that the graph was traced with. */
  readonly batch: number
}

export interface Writer extends Facts {
  /** The name of a value that is written already. */
  readonly ref: (x: Tensor) => string
  /** The name of a list of integers. */
  readonly ints: (values: readonly number[]) => string
  /** A node of the file that computes x. */
  readonly emit: (
    x: Tensor,
    op: string,
    inputs: readonly string[],
    attributes?: Readonly<Record<string, AttributeValue>>,
  ) => void
}

export type Export = (x: Tensor, writer: Writer) => void

/** Some nodes in front of x that are written as part of the node for x. */
export interface Fused {
  readonly absorbs: readonly Tensor[]
  readonly write: (writer: Writer) => void
}
export type Fuse = (x: Tensor, facts: Facts) => Fused | undefined

/** An op that ONNX has with the same operands and no attributes. */
export const same =
  (op: string): Export =>
  (x, w) =>
    w.emit(x, op, x.inputs.map(w.ref))

export const keepsBatch = (x: Tensor, { batch }: Facts): void => {
  if (x.shape[0] !== batch) refuse(x, 'it moves or merges the batch axis')
}

/** Whether attributes are equal: records, lists and numbers, all the way down. */
const alike = (a: unknown, b: unknown): boolean => {
  if (Object.is(a, b)) return true
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false
  const keys = Object.keys(a)
  return (
    keys.length === Object.keys(b).length &&
    keys.every((k) => alike((a as Record<string, unknown>)[k], (b as Record<string, unknown>)[k]))
  )
}

/**
 * The nodes of x in front of x and above `leaf`, if x is node by node the graph `pattern` that was built on the same leaf; otherwise
 * undefined.
 */
export const between = (x: Tensor, pattern: Tensor, leaf: Tensor): readonly Tensor[] | undefined => {
  const found: Tensor[] = []
  const matches = (a: Tensor, b: Tensor): boolean => {
    if (b === leaf || a === leaf) return a === b
    if (a.op !== b.op || !equals(a.shape, b.shape) || a.inputs.length !== b.inputs.length) return false
    if (a !== x && !found.includes(a)) found.push(a)
    return alike(a.attrs, b.attrs) && a.inputs.every((i, k) => matches(i, b.inputs[k]))
  }
  return matches(x, pattern) ? found : undefined
}
