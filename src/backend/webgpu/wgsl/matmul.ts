import { type Finish, productKernels } from './product.ts'
import type { Kernel, Operand, Ref, Target } from './wgsl.ts'

/** out[z] = A[z] B[z], a part of a larger product perhaps: rows lie `lead` elements apart. */
export interface Matmul {
  readonly a: Operand
  readonly b: Operand
  readonly out: Operand
  readonly m: number
  readonly k: number
  readonly n: number
  readonly transA: boolean
  readonly transB: boolean
  readonly batch: number
  /** Elements from one product of the batch to the next. */
  readonly strideA: number
  readonly strideB: number
  readonly strideOut: number
  /** Elements from one row in memory to the next. */
  readonly leadA: number
  readonly leadB: number
  readonly leadOut: number
  readonly finish: Finish
}

/** `aligned`: every slot begins at a multiple of four elements. */
export const matmulKernels = (x: Matmul, aligned: boolean, target: Target): readonly Kernel[] => {
  const { m, k, n, batch, finish } = x
  const fours = [
    ...[x.transA ? m : k, x.transB ? k : n, n, x.leadA, x.leadB, x.leadOut],
    ...(batch > 1 ? [x.strideA, x.strideB, x.strideOut] : []),
    ...[x.a, x.b, x.out, ...(finish.bias === undefined ? [] : [finish.bias.operand])].map((o) => o.offset),
  ]
  const left = (ref: Ref, u: number) =>
    `  return ${ref.buffer}[${ref.base} + z * ${x.strideA / u} + ${x.transA ? `k * ${x.leadA / u} + ${quarter('i', u)}` : `i * ${x.leadA / u} + ${quarter('k', u)}`}];`
  const right = (ref: Ref, u: number) =>
    `  return ${ref.buffer}[${ref.base} + z * ${x.strideB / u} + ${x.transB ? `i * ${x.leadB / u} + ${quarter('k', u)}` : `k * ${x.leadB / u} + ${quarter('i', u)}`}];`
  return productKernels(
    {
      rows: m,
      cols: n,
      depth: k,
      batch,
      out: x.out,
      left: x.a,
      right: x.b,
      wide: aligned && fours.every((s) => s % 4 === 0),
      a: { along: x.transA ? 'i' : 'k', load: (ref) => left(ref, 1), wide: (ref) => left(ref, 4) },
      b: { along: x.transB ? 'k' : 'i', load: (ref) => right(ref, 1), wide: (ref) => right(ref, 4) },
      place: ({ base }, wide) => {
        const u = wide ? 4 : 1
        return `  let at = ${base} + z * ${x.strideOut / u} + row * ${x.leadOut / u} + ${quarter('col', u)};`
      },
      finish,
    },
    target,
  )
}

const quarter = (index: string, unit: number): string => (unit === 4 ? `${index} / 4` : index)
