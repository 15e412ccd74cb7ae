import type { Shape } from '../../core/shape.ts'
import { show } from '../../core/shape.ts'
import type { Extent, Floats, NodeView } from './values.ts'

/** What the families share: shapes as messages show them, axes, broadcasting beside the batch. */
export const extents = (v: Floats): readonly Extent[] => (v.batched ? ['N', ...v.probe.shape.slice(1)] : v.probe.shape)
export const showExtents = (v: Floats): string => show(extents(v) as Shape)

export const axis = (s: NodeView, a: number, rank: number, what = 'axis'): number =>
  Number.isInteger(a) && a >= -rank && a < rank
    ? a < 0
      ? a + rank
      : a
    : s.fail(`${what} ${a} is not an axis of a tensor of rank ${rank}`)

export const axes = (s: NodeView, list: readonly number[], rank: number): readonly number[] => {
  const out = list.map((a) => axis(s, a, rank, 'axes:'))
  return new Set(out).size === out.length ? out.sort((a, b) => a - b) : s.fail(`axes [${list}] repeat an axis`)
}

/** Axes as an attribute (older opsets) or as input 1. */
export const axesOf = (s: NodeView): readonly number[] | undefined =>
  s.list('axes') ?? (s.has(1) ? s.numbers(1) : undefined)
/** The axes of two operands meet at the last one; the batch must meet the batch, or an extent of 1, or nothing. */
export const checkBroadcast = (s: NodeView, a: Floats, b: Floats): void => {
  const clash = (x: Floats, y: Floats): boolean =>
    x.batched &&
    (y.batched
      ? y.probe.shape.length !== x.probe.shape.length
      : y.probe.shape.length > x.probe.shape.length ||
        (y.probe.shape.length === x.probe.shape.length && y.probe.shape[0] !== 1))
  if (clash(a, b) || clash(b, a))
    s.fail(`operands ${showExtents(a)} and ${showExtents(b)} do not leave the batch as the first axis`)
}
