import { address, copyRow, fillRow, share, word } from './lanes'
import { Argmax, Compact, Rows } from './words'

/** Row numbers arrive as f32; what names no row (negative, too large, NaN) is -1. */
@inline
function rowOf(index: usize, i: i32, rows: i32): i32 {
  const v = load<f32>(index + ((<usize>i) << 2))
  return v >= 0 && v < <f32>rows ? <i32>v : -1
}

/** out[i, :] = x[index[i], :], NaN where the index names no row. */
export function gather(ip: usize, slots: usize, id: i32, count: i32): void {
  const x = address(ip, Rows.x, slots)
  const index = address(ip, Rows.index, slots)
  const out = address(ip, Rows.out, slots)
  const n = word(ip, Rows.n)
  const rows = word(ip, Rows.rows)
  const d = word(ip, Rows.d)
  const bytes = (<usize>d) << 2
  const last = share(n, id + 1, count)
  for (let i = share(n, id, count); i < last; i++) {
    const r = rowOf(index, i, rows)
    if (r < 0) fillRow(out + <usize>i * bytes, f32x4.splat(NaN), d)
    else copyRow(out + <usize>i * bytes, x + <usize>r * bytes, 1, d)
  }
}

/** out[r, :] = sum of x[i, :] over ascending i with index[i] = r; each thread owns a range of r. */
export function scatterAdd(ip: usize, slots: usize, id: i32, count: i32): void {
  const d = <usize>word(ip, Rows.d)
  const rows = word(ip, Rows.rows)
  const first = share(rows, id, count)
  const out = address(ip, Rows.out, slots)
  fillRow(out + ((<usize>first * d) << 2), f32x4.splat(0), (share(rows, id + 1, count) - first) * <i32>d)
  addRows(ip, slots, id, count, out)
}

/** The same sums added to what is there. */
export function scatterInto(ip: usize, slots: usize, id: i32, count: i32): void {
  addRows(ip, slots, id, count, address(ip, Rows.out, slots) + ((<usize>word(ip, Rows.end)) << 2))
}

function addRows(ip: usize, slots: usize, id: i32, count: i32, out: usize): void {
  const x = address(ip, Rows.x, slots)
  const index = address(ip, Rows.index, slots)
  const n = word(ip, Rows.n)
  const rows = word(ip, Rows.rows)
  const d = word(ip, Rows.d)
  const bytes = (<usize>d) << 2
  const first = share(rows, id, count)
  const last = share(rows, id + 1, count)
  if (first >= last) return
  for (let i = 0; i < n; i++) {
    const r = rowOf(index, i, rows)
    if (r < first || r >= last) continue
    addRow(out + <usize>r * bytes, x + <usize>i * bytes, d)
  }
}

function addRow(dst: usize, src: usize, n: i32): void {
  for (; n >= 4; n -= 4) {
    v128.store(dst, f32x4.add(v128.load(dst), v128.load(src)))
    dst += 16
    src += 16
  }
  for (; n > 0; n--) {
    store<f32>(dst, load<f32>(dst) + load<f32>(src))
    dst += 4
    src += 4
  }
}

/** out[o, i] = the first j with the largest x[o, j, i], the first NaN if there is one. */
export function argmax(ip: usize, slots: usize, id: i32, count: i32): void {
  const x = address(ip, Argmax.x, slots)
  const out = address(ip, Argmax.out, slots)
  const outer = word(ip, Argmax.outer)
  const axis = word(ip, Argmax.axis)
  const inner = word(ip, Argmax.inner)
  const last = share(outer * inner, id + 1, count)
  for (let u = share(outer * inner, id, count); u < last; u++) {
    const o = u / inner
    let p = x + ((<usize>(o * axis * inner + (u - o * inner))) << 2)
    const step = (<usize>inner) << 2
    let best = load<f32>(p)
    let at = 0
    for (let j = 1; j < axis && best == best; j++) {
      p += step
      const v = load<f32>(p)
      // Not (v <= best): true for a larger v and for NaN.
      if (!(v <= best)) {
        best = v
        at = j
      }
    }
    store<f32>(out + ((<usize>u) << 2), <f32>at)
  }
}

/**
 * Coordinates of the elements of x that are not 0, one list per dim, 0 behind the last. One thread: how many there are before an
 * element is known only after all of those were seen.
 */
export function compact(ip: usize, slots: usize, id: i32): void {
  if (id != 0) return
  const x = address(ip, Compact.x, slots)
  const out = address(ip, Compact.out, slots)
  const n = word(ip, Compact.n)
  const rank = word(ip, Compact.rank)
  fillRow(out, f32x4.splat(0), n * rank)
  let found = 0
  for (let i = 0; i < n; i++) {
    if (load<f32>(x + ((<usize>i) << 2)) == 0) continue
    let rest = i
    for (let d = rank - 1; d >= 0; d--) {
      const extent = word(ip, Compact.end + d)
      store<f32>(out + ((<usize>(d * n + found)) << 2), <f32>(rest % extent))
      rest /= extent
    }
    found++
  }
}
