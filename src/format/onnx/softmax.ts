import { size } from '../../core/shape.ts'
import type { Operand } from '../../core/tensor.ts'
import { logSoftmax, reshape, softmax } from '../../ops/index.ts'
import { axis, withAxes } from './axes.ts'
import type { Import } from './values.ts'
import type { Export } from './writer.ts'

/** Before opset 13 the axes from the one given on are one, and the default is the first after the batch. */
const along =
  (f: (x: Operand, axis: number) => Operand): Import =>
  (s) => {
    const v = s.floats(0)
    const rank = v.shape.length
    const from = axis(s, s.int('axis', s.opset >= 13 ? -1 : 1), rank)
    const list = s.opset >= 13 ? [from] : Array.from({ length: rank - from }, (_, i) => from + i)
    const { x, over } = withAxes(s, v, list, 'normalizes')
    return s.emit([x], ([y]) => {
      if (over.length === 1) return f(y, over[0])
      const flat = reshape(y, [...y.shape.slice(0, over[0]), size(y.shape.slice(over[0]))])
      return reshape(f(flat, over[0]), y.shape)
    })
  }

export const imports: Readonly<Record<string, Import>> = { LogSoftmax: along(logSoftmax), Softmax: along(softmax) }

const writeAlong =
  (op: string): Export =>
  (x, w) =>
    w.emit(x, op, [w.ref(x.inputs[0])], { axis: { int: (x.attrs as { readonly axis: number }).axis } })

export const exports: Readonly<Record<string, Export>> = {
  logSoftmax: writeAlong('LogSoftmax'),
  softmax: writeAlong('Softmax'),
}
