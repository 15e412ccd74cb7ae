import type { Operand } from '../../core/tensor.ts'
import { add, broadcastTo, div, mean, mul, pow, relu, reshape, sqrt, sub } from '../../ops/index.ts'
import { axis, showExtents, withAxes } from './axes.ts'
import { batched, type Import } from './values.ts'

/** Why a node in training mode is refused: it normalizes by the statistics of its batch, so an image has no output of its own. */
const TRAINING = 'the node is in training mode, which mixes the images of a batch; export the model in evaluation mode'

/**
 * Inference: y = x s + t with s = (1 / sqrt(var + epsilon)) scale and t = bias - mean s, rounded after each of these operations:
 * what onnxruntime's CPU kernel computes where it does not merge the op into a convolution before it (which is a different
 * float network). `[N, c, ...]` with parameters `[c]`.
 */
const batchNormalization: Import = (s) => {
  const x = s.floats(0)
  const epsilon = s.float('epsilon', Math.fround(1e-5))
  s.float('momentum', 0.9)
  if (s.int('training_mode', 0) !== 0) s.fail(`attribute training_mode: expected 0, found 1: ${TRAINING}`)
  if (s.results > 1) s.fail(`${s.results} outputs where inference has one: ${TRAINING}`)
  if (s.int('spatial', 1) !== 1) s.fail('attribute spatial: only 1 is supported')
  if (x.batch !== 'first' || x.shape.length < 2) s.fail(`expected [N,c,...], found ${showExtents(x)}`)
  if (!(epsilon >= 0 && Number.isFinite(epsilon))) s.fail(`attribute epsilon: ${epsilon} is not a number >= 0`)
  const channels = x.probe.shape[1]
  const parameters = [1, 2, 3, 4].map((i) => {
    const p = s.floats(i)
    return !batched(p) && p.probe.shape.length === 1 && p.probe.shape[0] === channels
      ? p
      : s.fail(`input ${i} must be a parameter [${channels}], found ${showExtents(p)}`)
  })
  const lifted = [channels, ...x.probe.shape.slice(2).map(() => 1)]
  return s.emit([x, ...parameters], ([v, scale, bias, average, variance]) => {
    const factor = mul(div(1, sqrt(add(variance, epsilon)) as Operand), scale) as Operand
    const shift = sub(bias, mul(average, factor) as Operand) as Operand
    return add(mul(v, reshape(factor, lifted)) as Operand, reshape(shift, lifted)) as Operand
  })
}

/**
 * As the standard has it as a function of other ops: y = d (1 / sqrt(mean(d^2) + epsilon)) scale + bias with d = x - mean(x), over the axes from the one given on.
 * A kernel may find the variance as mean(x^2) - mean(x)^2, which is the same in real arithmetic alone.
 */
const layerNormalization: Import = (s) => {
  const v = s.floats(0)
  const rank = v.shape.length
  const epsilon = s.float('epsilon', Math.fround(1e-5))
  s.int('stash_type', 1)
  if (s.results > 1) s.fail(`${s.results} outputs; the mean and the deviation, which training needs, are not supported`)
  if (!(epsilon >= 0 && Number.isFinite(epsilon))) s.fail(`attribute epsilon: ${epsilon} is not a number >= 0`)
  const from = axis(s, s.int('axis', -1), rank)
  const { x, over } = withAxes(
    s,
    v,
    Array.from({ length: rank - from }, (_, i) => from + i),
    'normalizes',
  )
  const own = over.map((a) => x.probe.shape[a])
  const parameters = [1, 2]
    .filter((i) => s.has(i))
    .map((i) => {
      const p = s.floats(i)
      const fits =
        p.probe.shape.length <= own.length &&
        p.probe.shape.every((d, k) => d === 1 || d === own.at(k - p.probe.shape.length))
      return !batched(p) && p.batch === 'none' && fits
        ? p
        : s.fail(`input ${i} must be a parameter that broadcasts to [${own}], found ${showExtents(p)}`)
    })
  return s.emit([x, ...parameters], ([y, scale, bias]) => {
    // Repeated explicitly, which walks ask of operands that depend on the image.
    const centred = sub(y, broadcastTo(mean(y, over, true), y.shape)) as Operand
    // Cut at 0, below which it never is, though its bounds may be.
    const variance = relu(mean(pow(2)(centred), over, true))
    const factor = div(1, sqrt(add(variance, epsilon) as Operand)) as Operand
    const scaled = mul(mul(centred, broadcastTo(factor, y.shape)) as Operand, scale) as Operand
    return bias === undefined ? scaled : (add(scaled, bias) as Operand)
  })
}

/** Of images `[N, c, ...]`. */
export const imports: Readonly<Record<string, Import>> = { BatchNormalization: batchNormalization }
/** Of whatever axes an op names. */
export const overAxes: Readonly<Record<string, Import>> = { LayerNormalization: layerNormalization }
