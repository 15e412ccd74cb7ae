import type { Operand } from '../../core/tensor.ts'
import { abs, log, logSumExp, max, mean, min, pow, sqrt, sum } from '../../ops/index.ts'
import { axesOf, showExtents, withAxes } from './axes.ts'
import type { Import } from './values.ts'
import { type Export, refuse } from './writer.ts'

type Reduction = (x: Operand, axes: readonly number[], keep: boolean) => Operand

/** A reduction of all positions of each channel. */
const globalPool =
  (f: Reduction): Import =>
  (s) => {
    const x = s.floats(0)
    if (x.batch !== 'first' || x.shape.length < 3) s.fail(`expected [N,c,...], found ${showExtents(x)}`)
    const over = [...x.shape.keys()].slice(2)
    return s.emit([x], ([v]) => f(v, over, true))
  }

/** A reduction over axes, never over the images of a batch. */
const reduce =
  (f: Reduction): Import =>
  (s) => {
    const v = s.floats(0)
    const keep = s.int('keepdims', 1) !== 0
    const given = axesOf(s) ?? []
    const idle = s.int('noop_with_empty_axes', 0) !== 0
    const { x, over } = withAxes(s, v, given.length === 0 && !idle ? [...v.shape.keys()] : given, 'reduces')
    return over.length === 0 ? v : s.emit([x], ([y]) => f(y, over, keep))
  }

export const imports: Readonly<Record<string, Import>> = {
  GlobalAveragePool: globalPool(mean),
  GlobalMaxPool: globalPool(max),
  ReduceL1: reduce((x, over, keep) => sum(abs(x), over, keep)),
  ReduceL2: reduce((x, over, keep) => sqrt(sum(pow(2)(x), over, keep))),
  ReduceLogSum: reduce((x, over, keep) => log(sum(x, over, keep))),
  ReduceLogSumExp: reduce(logSumExp),
  ReduceMax: reduce(max),
  ReduceMean: reduce(mean),
  ReduceMin: reduce(min),
  ReduceSum: reduce(sum),
  ReduceSumSquare: reduce((x, over, keep) => sum(pow(2)(x), over, keep)),
}

/** A reduction with its axes as an input or as an attribute, as opset 13 has them. */
const reduction =
  (op: string, axesAs: 'input' | 'attribute'): Export =>
  (x, w) => {
    const { axes: over, keep } = x.attrs as { readonly axes: readonly number[]; readonly keep: boolean }
    const [y] = x.inputs.map(w.ref)
    const keepdims = { keepdims: { int: Number(keep) } }
    if (w.moving(x) && over.includes(0)) refuse(x, 'it reduces the batch axis')
    if (over.length === 0) w.emit(x, 'Identity', [y])
    else if (axesAs === 'input') w.emit(x, op, [y, w.ints(over)], keepdims)
    else w.emit(x, op, [y], { axes: { ints: over }, ...keepdims })
  }

export const exports: Readonly<Record<string, Export>> = {
  max: reduction('ReduceMax', 'attribute'),
  sum: reduction('ReduceSum', 'input'),
}
