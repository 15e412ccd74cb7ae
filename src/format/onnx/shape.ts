import { type Shape, show, size } from '../../core/shape.ts'
import { axes, axesOf, axis, permuted, showExtents, spread, toShape } from './axes.ts'
import { shapeFrom } from './constant.ts'
import { batched, type Extent, type Import, type NodeView } from './values.ts'
import { type Export, keepsBatch, refuse } from './writer.ts'

/** Ops that give the same elements another shape, repeat them, or put them in another order. */

/** Fills in -1 so that the elements agree; `from` and `target` without the batch. */
const resolve = (s: NodeView, from: Shape, target: Shape, shown: string): Shape => {
  const open = target.indexOf(-1)
  if (target.some((d) => d < -1) || (target.indexOf(-1, open + 1) > 0 && open >= 0))
    return s.fail(`the shape ${shown} is not valid`)
  const filled = size(target.filter((d) => d !== -1))
  const total = size(from)
  if (open >= 0 ? filled === 0 || total % filled !== 0 : filled !== total)
    return s.fail(`${total} elements${from.length > 0 ? ` of ${show(from)}` : ''} do not fill the shape ${shown}`)
  return target.map((d) => (d === -1 ? total / filled : d))
}

const withoutBatch = (s: NodeView, target: readonly Extent[], shown: string): Shape =>
  target.map((d) =>
    d === 'N' ? s.fail(`the shape ${shown} moves or merges the batch axis, which must stay the first`) : d,
  )

/**
 * Reshape. A value whose batch is open keeps it: the first extent of the target may be the batch itself (computed by Shape), 0, -1
 * where the others account for one whole image, or 1 where the file was made for one image. Any other value takes any shape of as many
 * elements.
 */
const reshapeTo: Import = (s) => {
  const x = s.either(0)
  const allowZero = s.int('allowzero', 0) !== 0
  const target = shapeFrom(s, 1)
  const shown = show(target as Shape)
  const shape = target.map((d, i) => {
    if (d !== 0 || (allowZero && x.shape.includes(0))) return d
    if (allowZero) return s.fail('attribute allowzero: an extent of 0 is not supported')
    return x.shape[i] ?? s.fail(`the shape ${shown} copies axis ${i}, which ${showExtents(x)} has not`)
  })
  if (x.shape[0] !== 'N') return toShape(s, x, resolve(s, x.shape as Shape, withoutBatch(s, shape, shown), shown))
  const rest = withoutBatch(s, shape.slice(1), shown)
  const [batch] = shape
  const image = x.shape.slice(1) as Shape
  if (shape.length < 2 || (batch !== 'N' && batch !== -1 && batch !== 1))
    s.fail(`the shape ${shown} moves or merges the batch axis, which must stay the first`)
  if (batch === -1 && (rest.includes(-1) || size(rest) !== size(image)))
    s.fail(`the shape ${shown} of a value ${showExtents(x)} mixes the images of a batch`)
  return toShape(s, x, ['N', ...resolve(s, image, rest, shown)])
}

const flatten: Import = (s) => {
  const x = s.either(0)
  const rank = x.shape.length
  const given = s.int('axis', 1)
  const at = given === rank ? rank : axis(s, given, rank)
  const [before, behind] = [x.shape.slice(0, at), x.shape.slice(at)]
  if (x.shape[0] !== 'N') return toShape(s, x, [size(before as Shape), size(behind as Shape)])
  if (at === 0 || size(before.slice(1) as Shape) !== 1)
    s.fail(`attribute axis: ${given} merges the batch axis of ${showExtents(x)} with others`)
  return toShape(s, x, ['N', size(behind as Shape)])
}

const transposeTo: Import = (s) => {
  const x = s.either(0)
  const permutation = s.list('perm') ?? [...x.shape.keys()].reverse()
  if (permutation.length !== x.shape.length || axes(s, permutation, x.shape.length).some((a, i) => a !== i))
    s.fail(`attribute perm: [${permutation}] is not a permutation of ${x.shape.length} axes`)
  return permuted(s, x, permutation)
}

const squeeze: Import = (s) => {
  const x = s.either(0)
  const list = axesOf(s)
  const out = list === undefined ? [...x.shape.keys()].filter((i) => x.shape[i] === 1) : axes(s, list, x.shape.length)
  if (out.some((i) => x.shape[i] === 'N')) s.fail('it removes the batch axis')
  if (out.some((i) => x.shape[i] !== 1)) s.fail(`axes [${out}] of ${showExtents(x)} are not all 1`)
  return toShape(
    s,
    x,
    x.shape.filter((_, i) => !out.includes(i)),
  )
}

const unsqueeze: Import = (s) => {
  const x = s.either(0)
  const list = axesOf(s) ?? s.fail('axes are missing')
  const rank = x.shape.length + list.length
  if (rank > 8) s.fail(`a value of ${rank} axes; at most 8 are supported`)
  const at = axes(s, list, rank)
  if (x.shape[0] === 'N' && at.includes(0)) s.fail('it puts an axis before the batch')
  const old = [...x.shape]
  return toShape(
    s,
    x,
    Array.from({ length: rank }, (_, i) => (at.includes(i) ? 1 : (old.shift() as Extent))),
  )
}

/** The value repeated until its shape is the broadcast of its own and the given one. */
const expand: Import = (s) => {
  const x = s.either(0)
  const target = shapeFrom(s, 1)
  const rank = Math.max(x.shape.length, target.length)
  const meets = (shape: readonly Extent[], i: number): Extent => shape[i - (rank - shape.length)] ?? 1
  const open = x.kind === 'floats' && batched(x) && x.shape[0] === 'N'
  if (open && rank > x.shape.length) s.fail('it puts an axis before the batch')
  const shape = Array.from({ length: rank }, (_, i) => {
    const [own, wanted] = [meets(x.shape, i), meets(target, i)]
    if (own === wanted || wanted === 1) return own
    if (own === 1 && (wanted === 'N' ? i === 0 : wanted >= 1)) return wanted
    if (own === 'N') return s.fail(`it repeats the batch ${wanted} times`)
    return s.fail(`${showExtents(x)} does not broadcast to ${show(target as Shape)}`)
  })
  if (open && shape[0] !== 'N') s.fail('it repeats the batch')
  return spread(s, x, shape)
}

export const imports: Readonly<Record<string, Import>> = {
  Expand: expand,
  Flatten: flatten,
  Reshape: reshapeTo,
  Squeeze: squeeze,
  Transpose: transposeTo,
  Unsqueeze: unsqueeze,
}

const writeReshape: Export = (x, w) => {
  const [y] = x.inputs
  if (!w.moving(x)) return w.emit(x, 'Reshape', [w.ref(y), w.ints(x.shape)])
  keepsBatch(x, w)
  if (size(x.shape.slice(1)) !== size(y.shape.slice(1))) refuse(x, 'it moves or merges the batch axis')
  if (x.shape.length === 2) return w.emit(x, 'Flatten', [w.ref(y)], { axis: { int: 1 } })
  return w.emit(x, 'Reshape', [w.ref(y), w.ints([0, ...x.shape.slice(1)])])
}

const writeTranspose: Export = (x, w) => {
  const { permutation } = x.attrs as { readonly permutation: readonly number[] }
  if (w.moving(x) && permutation[0] !== 0) refuse(x, 'it moves the batch axis')
  w.emit(x, 'Transpose', x.inputs.map(w.ref), { perm: { ints: permutation } })
}

const writeBroadcast: Export = (x, w) => {
  const [y] = x.inputs
  const moving = w.moving(x)
  if (moving) keepsBatch(x, w)
  if (moving && y.shape.length !== x.shape.length) refuse(x, 'it puts an axis before the batch')
  w.emit(x, 'Expand', [w.ref(y), w.ints(moving ? [1, ...x.shape.slice(1)] : x.shape)])
}

export const exports: Readonly<Record<string, Export>> = {
  broadcast: writeBroadcast,
  reshape: writeReshape,
  transpose: writeTranspose,
}
