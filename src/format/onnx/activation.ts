import { leakyRelu, relu, sigmoid, tanh } from '../../ops/index.ts'
import { unary } from './elementwise.ts'
import type { Import } from './values.ts'
import { type Export, same } from './writer.ts'

/** Inference: the identity. */
const dropout: Import = (s) => {
  s.float('ratio', 0.5)
  s.int('seed', 0)
  if (s.has(2) && s.flag(2)) s.fail('training_mode is true')
  return s.value(0)
}

const leaky: Import = (s) => {
  const alpha = s.float('alpha', Math.fround(0.01))
  if (!(alpha >= 0 && alpha < 1)) s.fail(`attribute alpha: ${alpha} is not in [0, 1)`)
  return s.emit([s.floats(0)], ([x]) => leakyRelu(alpha)(x))
}

export const imports: Readonly<Record<string, Import>> = {
  Dropout: dropout,
  LeakyRelu: leaky,
  Relu: unary(relu),
  Sigmoid: unary(sigmoid),
  Tanh: unary(tanh),
}

export const exports: Readonly<Record<string, Export>> = {
  leakyRelu: (x, w) =>
    w.emit(x, 'LeakyRelu', [w.ref(x.inputs[0])], { alpha: { float: (x.attrs as { slope: number }).slope } }),
  relu: same('Relu'),
  sigmoid: same('Sigmoid'),
  tanh: same('Tanh'),
}
