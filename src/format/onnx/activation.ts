import { MOST } from '../../core/rounding.ts'
import { show } from '../../core/shape.ts'
import type { Operand } from '../../core/tensor.ts'
import {
  add,
  celu,
  clip,
  dataOf,
  elu,
  exp,
  gelu,
  hardSigmoid,
  hardSwish,
  leakyRelu,
  minimum,
  mish,
  mul,
  prelu,
  relu,
  scalar,
  sigmoid,
  softplus,
  softsign,
  sub,
  tanh,
  thresholdedRelu,
} from '../../ops/index.ts'
import { aligned, showExtents } from './axes.ts'
import { unary } from './elementwise.ts'
import { batched, type Import, type NodeView } from './values.ts'
import { type Export, refuse, same } from './writer.ts'

/** Inference: the identity. */
const dropout: Import = (s) => {
  s.float('ratio', 0.5)
  s.int('seed', 0)
  if (s.has(2) && s.flag(2)) s.fail('training_mode is true')
  return s.value(0)
}

/** An op of one operand that attributes choose. */
const chosen =
  (choose: (s: NodeView) => (x: Operand) => Operand): Import =>
  (s) => {
    const f = choose(s)
    return s.emit([s.floats(0)], ([x]) => f(x))
  }

/** A finite attribute. */
const finite = (s: NodeView, name: string, otherwise: number): number => {
  const v = s.float(name, Math.fround(otherwise))
  return Number.isFinite(v) ? v : s.fail(`attribute ${name}: expected a finite number, found ${v}`)
}

/** max(x, alpha x) below 1, which is what branches are split at; a slope of its own for any other alpha. */
const leaky = chosen((s) => {
  const alpha = finite(s, 'alpha', 0.01)
  return alpha >= 0 && alpha < 1 ? leakyRelu(alpha) : (x) => prelu(x, scalar(alpha))
})

/** The slopes broadcast to x, as the standard has it since opset 9. */
const parametric: Import = (s) => {
  const [x, slope] = [s.floats(0), s.floats(1)]
  const behind = x.shape.length - slope.shape.length
  const fits = behind >= 0 && slope.shape.every((d, i) => d === 1 || d === x.shape[i + behind])
  if (batched(slope) || !fits)
    s.fail(`input 1 must be a parameter that broadcasts to ${showExtents(x)}, found ${showExtents(slope)}`)
  return s.emit(aligned(s, [x, slope]), ([v, a]) => prelu(v, a))
}

/** Limits are attributes before opset 11, inputs since; either may be absent. */
const clipTo = chosen((s) => {
  const limit = (name: string, i: number, none: number): number => {
    const v = s.given(name) ? s.float(name, none) : s.opset >= 11 && s.has(i) ? s.number(i) : none
    if (Number.isNaN(v)) s.fail(`the limit ${name} is not a number`)
    return Math.abs(v) >= MOST ? Math.sign(v) * Number.POSITIVE_INFINITY : v
  }
  const [low, high] = [limit('min', 1, Number.NEGATIVE_INFINITY), limit('max', 2, Number.POSITIVE_INFINITY)]
  return (x) => clip(x, low, high)
})

/** For alpha < 0, where it is not monotone, as the sum of its two sides. */
const exponential = chosen((s) => {
  const alpha = finite(s, 'alpha', 1)
  return alpha >= 0
    ? elu(alpha)
    : (x) => add(relu(x), mul(alpha, sub(exp(minimum(x, 0) as Operand), 1))) as unknown as Operand
})

const scaled = chosen((s) => {
  // As the standard writes them, rounded to float32.
  const [alpha, gamma] = [finite(s, 'alpha', 1.6732632), finite(s, 'gamma', 1.050701)]
  if (alpha < 0) s.fail(`attribute alpha: expected a number >= 0, found ${alpha}`)
  return (x) => mul(gamma, elu(alpha)(x)) as Operand
})

const continuous = chosen((s) => {
  const alpha = finite(s, 'alpha', 1)
  return alpha > 0 ? celu(alpha) : s.fail(`attribute alpha: expected a number > 0, found ${alpha}`)
})

const gaussian = chosen((s) => {
  const approximate = s.string('approximate', 'none')
  return approximate === 'none' || approximate === 'tanh'
    ? gelu(approximate)
    : s.fail(`attribute approximate: expected "none" or "tanh", found ${JSON.stringify(approximate.slice(0, 80))}`)
})

export const imports: Readonly<Record<string, Import>> = {
  Celu: continuous,
  Clip: clipTo,
  Dropout: dropout,
  Elu: exponential,
  Gelu: gaussian,
  HardSigmoid: chosen((s) => hardSigmoid(finite(s, 'alpha', 0.2), finite(s, 'beta', 0.5))),
  HardSwish: unary(hardSwish),
  LeakyRelu: leaky,
  Mish: unary(mish),
  PRelu: parametric,
  Relu: unary(relu),
  Selu: scaled,
  Sigmoid: unary(sigmoid),
  Softplus: unary(softplus),
  Softsign: unary(softsign),
  Tanh: unary(tanh),
  ThresholdedRelu: chosen((s) => thresholdedRelu(finite(s, 'alpha', 1))),
}

/** Limits of a clip that do not limit are left out. */
const writeClip: Export = (x, w) => {
  const named = x.inputs.slice(1).map((limit) => {
    const none = dataOf(limit)?.every((v) => !Number.isFinite(v)) === true
    return none ? '' : w.ref(limit)
  })
  // The limits of ONNX are scalars.
  if (x.inputs.slice(1).every((limit) => limit.shape.length === 0)) w.emit(x, 'Clip', [w.ref(x.inputs[0]), ...named])
  else
    refuse(
      x,
      `limits of shapes ${x.inputs
        .slice(1)
        .map((i) => show(i.shape))
        .join(' and ')}; ONNX has scalars`,
    )
}

export const exports: Readonly<Record<string, Export>> = {
  clip: writeClip,
  elu: (x, w) => w.emit(x, 'Elu', [w.ref(x.inputs[0])], { alpha: { float: (x.attrs as { alpha: number }).alpha } }),
  leakyRelu: (x, w) =>
    w.emit(x, 'LeakyRelu', [w.ref(x.inputs[0])], { alpha: { float: (x.attrs as { slope: number }).slope } }),
  prelu: same('PRelu'),
  relu: same('Relu'),
  sigmoid: same('Sigmoid'),
  softplus: same('Softplus'),
  softsign: same('Softsign'),
  tanh: same('Tanh'),
}
