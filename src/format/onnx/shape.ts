import { type Shape, show, size } from '../../core/shape.ts'
import { broadcastTo, reshape, transpose } from '../../ops/index.ts'
import { axes, axesOf, axis, extents, showExtents } from './axes.ts'
import type { Extent, Floats, Import, Ints, NodeView } from './values.ts'
import { type Export, keepsBatch, refuse } from './writer.ts'

/** `x` under a new shape; a batched one keeps the batch in front of `target`. */
const reshaped = (s: NodeView, x: Floats, target: Shape): Floats =>
  s.emit([x], ([v]) => reshape(v, x.batched ? [v.shape[0], ...target] : target))

/** Fills in -1 so that the elements agree. */
const resolve = (s: NodeView, from: Shape, target: Shape, showTarget: string): Shape => {
  const open = target.indexOf(-1)
  if (target.some((d) => d < -1) || (target.indexOf(-1, open + 1) > 0 && open >= 0))
    return s.fail(`the shape ${showTarget} is not valid`)
  const known = size(target.filter((d) => d !== -1))
  const total = size(from)
  if (open >= 0 ? known === 0 || total % known !== 0 : known !== total)
    return s.fail(`${total} elements${from.length > 0 ? ` of ${show(from)}` : ''} do not fill the shape ${showTarget}`)
  return target.map((d) => (d === -1 ? total / known : d))
}

/**
 * Reshape. A batched value keeps its batch: the first extent of the target may be the batch itself (computed by Shape), 0, -1
 * where the others account for one whole image, or 1 where the file was made for one image.
 */
const reshapeTo: Import = (s) => {
  const x = s.floats(0)
  const target = s.ints(1).data
  const allowZero = s.int('allowzero', 0) !== 0
  const shown = show(target as Shape)
  if (target.length > 8) s.fail(`a shape of ${target.length} axes; at most 8 are supported`)
  const shape = target.map((d, i) => {
    if (d !== 0) return d
    if (allowZero) return s.fail('attribute allowzero: an extent of 0 is not supported')
    return extents(x)[i] ?? s.fail(`the shape ${shown} copies axis ${i}, which ${showExtents(x)} has not`)
  })
  const rest = (shape.slice(x.batched ? 1 : 0) as readonly Extent[]).map((d) =>
    d === 'N' ? s.fail(`the shape ${shown} moves or merges the batch axis, which must stay the first`) : d,
  )
  if (!x.batched) return reshaped(s, x, resolve(s, x.probe.shape, rest, shown))
  const [batch] = shape
  const image = x.probe.shape.slice(1)
  if (shape.length < 2 || (batch !== 'N' && batch !== -1 && batch !== 1))
    s.fail(`the shape ${shown} moves or merges the batch axis, which must stay the first`)
  if (batch === -1 && (rest.includes(-1) || size(rest) !== size(image)))
    s.fail(`the shape ${shown} of a value ${showExtents(x)} mixes the images of a batch`)
  return reshaped(s, x, resolve(s, image, rest, shown))
}

const flatten: Import = (s) => {
  const x = s.floats(0)
  const rank = x.probe.shape.length
  const given = s.int('axis', 1)
  const at = given === rank ? rank : axis(s, given, rank)
  const [before, behind] = [x.probe.shape.slice(0, at), x.probe.shape.slice(at)]
  if (!x.batched) return reshaped(s, x, [size(before), size(behind)])
  if (at === 0 || size(before.slice(1)) !== 1)
    s.fail(`attribute axis: ${given} merges the batch axis of ${showExtents(x)} with others`)
  return reshaped(s, x, [size(behind)])
}

const transposeTo: Import = (s) => {
  const x = s.floats(0)
  const rank = x.probe.shape.length
  const permutation = s.list('perm') ?? [...x.probe.shape.keys()].reverse()
  if (x.batched && permutation[0] !== 0) s.fail(`attribute perm: [${permutation}] moves the batch axis`)
  if (permutation.length !== rank) s.fail(`attribute perm: [${permutation}] is not a permutation of ${rank} axes`)
  return s.emit([x], ([v]) => transpose(v, permutation))
}

const asList = (s: NodeView, v: Ints, rank: 0 | 1): Ints =>
  rank === 1 || v.data.length === 1 ? { ...v, rank } : s.fail('only one integer can lose its axis')

const squeeze: Import = (s) => {
  const v = s.either(0)
  const list = axesOf(s)
  if (v.kind === 'ints') {
    if (v.rank !== 1 || (list ?? [0]).length !== 1) return s.fail('integers have one axis at most')
    axes(s, list ?? [0], 1)
    return asList(s, v, 0)
  }
  const shape = v.probe.shape
  const out = list === undefined ? [...shape.keys()].filter((i) => shape[i] === 1) : axes(s, list, shape.length)
  if (v.batched && out.includes(0)) s.fail('it removes the batch axis')
  if (out.some((i) => shape[i] !== 1)) s.fail(`axes [${out}] of ${showExtents(v)} are not all 1`)
  const kept = shape.filter((_, i) => !out.includes(i))
  return reshaped(s, v, v.batched ? kept.slice(1) : kept)
}

const unsqueeze: Import = (s) => {
  const v = s.either(0)
  const list = axesOf(s) ?? s.fail('axes are missing')
  if (v.kind === 'ints') {
    if (v.rank !== 0 || list.length !== 1) return s.fail('integers have one axis at most')
    axes(s, list, 1)
    return asList(s, v, 1)
  }
  const rank = v.probe.shape.length + list.length
  if (rank > 8) s.fail(`a value of ${rank} axes; at most 8 are supported`)
  const at = axes(s, list, rank)
  if (v.batched && at.includes(0)) s.fail('it puts an axis before the batch')
  const old = [...v.probe.shape]
  const shape = Array.from({ length: rank }, (_, i) => (at.includes(i) ? 1 : (old.shift() as number)))
  return reshaped(s, v, v.batched ? shape.slice(1) : shape)
}

const expand: Import = (s) => {
  const x = s.floats(0)
  const target = s.ints(1).data
  if (x.batched && target.length > x.probe.shape.length) s.fail('it puts an axis before the batch')
  const missing = Math.max(0, x.probe.shape.length - target.length)
  const wanted = [...x.probe.shape.slice(0, missing), ...target]
  const shape = wanted.map((d, i) => {
    const own = x.probe.shape[i - (wanted.length - x.probe.shape.length)] ?? 1
    if (x.batched && i === 0) return d === 'N' || d === 1 || i < missing ? 1 : s.fail(`it repeats the batch ${d} times`)
    if (d === 'N' || d < 1 || (d !== 1 && own !== 1 && d !== own))
      return s.fail(`${showExtents(x)} does not broadcast to ${show(target as Shape)}`)
    return d === 1 ? own : d
  })
  return s.emit([x], ([v]) => broadcastTo(v, x.batched ? [v.shape[0], ...shape.slice(1)] : shape))
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
