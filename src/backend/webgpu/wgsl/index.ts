import type { WindowSizes } from '../../../core/lowering.ts'
import { bitsOf } from '../../../core/number.ts'
import {
  type Axis,
  address,
  element,
  elementwise,
  entry,
  type Kernel,
  LANES,
  type Operand,
  product,
  type Ref,
  unravel,
} from './wgsl.ts'

/** Kernels whose every element finds its own operands: fill, gather, scatterAdd, argmax, compact, unfold, fold. */

/** A row number from f32 at an index expression: -1 for what names no row (negative, too large, NaN). */
const rowOf = (value: string, rows: number): string =>
  `i32(select(-1.0, ${value}, !broken(${value}) && rank(${value}) >= 0 && rank(${value}) < rank(${rows}.0)))`

/** `value` may be NaN or infinite, which WGSL cannot write as a number. */
export const fillKernel = (
  out: Operand,
  dims: readonly number[],
  strides: readonly number[],
  value: number,
): Kernel => {
  const axes = dims.map((extent, i): Axis => ({ name: `i${i}`, extent }))
  return elementwise(product(dims), [out], ([to]) =>
    [
      ...unravel('e', axes),
      `var value = ${bitsOf(value) >>> 0}u;`,
      `${element(to, address('0', axes, strides))} = bitcast<f32>(value);`,
    ]
      .map((s) => `  ${s}`)
      .join('\n'),
  )
}

/** A part of a gather: n rows of d elements each out of rows x width ones. */
export interface Gather {
  readonly out: Operand
  readonly x: Operand
  readonly index: Operand
  readonly n: number
  readonly d: number
  readonly rows: number
  readonly width: number
  /** First column. */
  readonly column: number
  /** The elements of x that x shows, and whether they are the first of it: the others are left to other parts. */
  readonly shown: readonly [number, number]
}

/** out[i, :] = x[index[i], :], NaN where the index names no row. */
export const gatherKernel = ({ out, x, index, n, d, rows, width, column, shown }: Gather): Kernel => {
  const [low, high] = shown
  const all = low === 0 && high === rows * width
  return elementwise(
    n * d,
    [out, x, index],
    ([to, from, at]) => `  let i = e / ${d};
  let j = e % ${d};
  let named = ${element(at, 'i')};
  let row = ${rowOf('named', rows)};
  let place = ${to.base} + i * ${width} + j;
  if (row < 0) { ${low === 0 ? `${to.buffer}[place] = quiet(); ` : ''}return; }
  let source = row * ${width} + j + ${column};
${
  all
    ? ''
    : `  if (source < ${low} || source >= ${high}) { return; }
`
}  ${to.buffer}[place] = ${element(from, `source - ${low}`)};`,
  )
}

/** A part of scatterAdd: rows from `row` on of the result, and n of the added rows. */
export interface Scatter {
  readonly out: Operand
  readonly x: Operand
  readonly index: Operand
  readonly n: number
  readonly d: number
  readonly rows: number
  readonly count: number
  readonly width: number
  readonly row: number
  /** Adds to what is there. */
  readonly accumulate: boolean
}

/** out[r, :] = sum of x[i, :] over ascending i with index[i] = r. */
export const scatterAddKernel = (s: Scatter): Kernel =>
  elementwise(
    s.count * s.d,
    [s.out, s.x, s.index],
    ([to, from, at]) => `  let r = e / ${s.d};
  let j = e % ${s.d};
  var sum = ${s.accumulate ? element(to, `r * ${s.width} + j`) : '0.0'};
  for (var i = 0; i < ${s.n}; i++) {
    let named = ${element(at, 'i')};
    if (${rowOf('named', s.rows)} == r + ${s.row}) { sum += ${element(from, `i * ${s.width} + j`)}; }
  }
  ${element(to, `r * ${s.width} + j`)} = sum;`,
  )

/** out[o, i] = the first j with the largest x[o, j, i], the first NaN if there is one. */
export const argmaxKernel = (out: Operand, x: Operand, outer: number, axis: number, inner: number): Kernel =>
  elementwise(
    outer * inner,
    [out, x],
    ([to, from]) => `  let start = e / ${inner} * ${axis * inner} + e % ${inner};
  var best = ${element(from, 'start')};
  var found = 0;
  for (var j = 1; j < ${axis} && !broken(best); j++) {
    let v = ${element(from, `start + j * ${inner}`)};
    if (broken(v) || rank(v) > rank(best)) { best = v; found = j; }
  }
  ${element(to, 'e')} = f32(found);`,
  )

/** A part of argmax in two steps, the largest values being known: [outer, axis, inner] of a larger x. */
export interface Find {
  readonly out: Operand
  readonly x: Operand
  readonly best: Operand
  readonly dims: readonly [outer: number, axis: number, inner: number]
  /** Elements from one outer index, and from one j, to the next in x. */
  readonly strides: readonly [number, number]
  /** The first j of this part; where it is not 0, what was found before stays. */
  readonly first: number
}

/** out[o, i] = the first j with x[o, j, i] = best[o, i], -1 where this and the parts before have none. */
export const findKernel = ({ out, x, best, dims, strides, first }: Find): Kernel => {
  const [outer, axis, inner] = dims
  const rowLength = strides[1]
  return elementwise(
    outer * inner,
    [out, x, best],
    ([to, from, known]) => `  let o = e / ${inner};
  let i = e % ${inner};
  let place = o * ${rowLength} + i;
  let wanted = ${element(known, 'place')};
  var found = ${first === 0 ? '-1.0' : element(to, 'place')};
  for (var j = 0; j < ${axis} && found < 0.0; j++) {
    let v = ${element(from, `o * ${strides[0]} + j * ${strides[1]} + i`)};
    if ((broken(v) && broken(wanted)) || (comparable(v, wanted) && rank(v) == rank(wanted))) { found = f32(j + ${first}); }
  }
  ${element(to, 'place')} = found;`,
  )
}

/** A part of compact, done by one workgroup: a part of x, and of the places in out. */
export interface Compact {
  readonly out: Operand
  readonly x: Operand
  /** Elements of this part of x, and the number of its first one. */
  readonly n: number
  readonly first: number
  readonly dims: readonly number[]
  /** Which coordinates are written, and how far apart. */
  readonly rows: readonly number[]
  readonly apart: number
  /** Places that out shows, from its beginning on. */
  readonly shown: readonly [number, number]
  /** How many were found in the parts before; undefined where this part is all of x: it then fills up with 0. */
  readonly counter: Operand | undefined
}

/** Each lane counts its share of x, in order; `place` is where its first find goes, `all` how many there are. */
const countFinds = (n: number, x: Ref): string => {
  const share = Math.ceil(n / LANES)
  return `${entry(LANES)}
  let begin = min(${n}, lane * ${share});
  let stop = select(0, min(${n}, begin + ${share}), group == 0);
  var mine = 0;
  for (var i = begin; i < stop; i++) { if (found(${element(x, 'i')})) { mine++; } }
  finds[lane] = mine;
  workgroupBarrier();
  var place = 0;
  var all = 0;
  for (var i = 0; i < ${LANES}; i++) {
    if (i < lane) { place += finds[i]; }
    all += finds[i];
  }`
}
const FINDS = `var<workgroup> finds: array<i32, ${LANES}>;
fn found(v: f32) -> bool { return broken(v) || rank(v) != 0; }
`

/** Coordinates of the elements of x that are not 0, in row-major order. */
export const compactKernel = ({ out, x, n, first, dims, rows, apart, shown, counter }: Compact): Kernel => {
  const [low, high] = shown
  const below = (k: number) => product(dims.slice(k + 1))
  return {
    operands: [out, x, ...(counter === undefined ? [] : [counter])],
    groups: 1,
    wide: false,
    code: ([to, from, before]) => `${FINDS}${countFinds(n, from)}
${before === undefined ? '' : `  place += i32(${element(before, '0')});\n`}  for (var i = begin; i < stop; i++) {
    if (!found(${element(from, 'i')})) { continue; }
    if (place >= ${low} && place < ${high}) {
${rows.map((k, r) => `      ${element(to, `${r * apart} + place - ${low}`)} = f32((i + ${first}) / ${below(k)} % ${dims[k]});`).join('\n')}
    }
    place++;
  }
${
  before === undefined
    ? `  for (var i = all + lane; i < ${n} && group == 0; i += ${LANES}) {
${rows.map((_, r) => `    ${element(to, `${r * apart} + i`)} = 0.0;`).join('\n')}
  }`
    : ''
}
}`,
  }
}

/** Adds what a part of x counts to the counter. */
export const countKernel = (counter: Operand, x: Operand, n: number): Kernel => ({
  operands: [counter, x],
  groups: 1,
  wide: false,
  code: ([sum, from]) => `${FINDS}${countFinds(n, from)}
  if (lane == 0 && group == 0) { ${element(sum, '0')} += f32(all); }
}`,
})

/** 0 in the places from `low` on that nothing was found for. */
export const emptyKernel = (out: Operand, counter: Operand, n: number, low: number): Kernel =>
  elementwise(
    n,
    [out, counter],
    ([to, sum]) => `  if (e + ${low} >= i32(${element(sum, '0')})) { ${element(to, 'e')} = 0.0; }`,
  )

/** Windows of x: [N, C, H, W] -> [N, OH, OW, C, KH, KW], zero outside. */
export const unfoldKernel = (x: Operand, out: Operand, sizes: WindowSizes): Kernel => {
  const { N, C, H, W, KH, KW, OH, OW, strideY, strideX, padTop, padLeft, dilationY, dilationX } = sizes
  return elementwise(
    N * OH * OW * C * KH * KW,
    [out, x],
    ([to, from]) => `  let q = e % ${KW};
  let p = e / ${KW} % ${KH};
  let c = e / ${KW * KH} % ${C};
  let j = e / ${KW * KH * C} % ${OW};
  let i = e / ${KW * KH * C * OW} % ${OH};
  let n = e / ${KW * KH * C * OW * OH};
  let y = i * ${strideY} - ${padTop} + p * ${dilationY};
  let z = j * ${strideX} - ${padLeft} + q * ${dilationX};
  if (y < 0 || y >= ${H} || z < 0 || z >= ${W}) { ${element(to, 'e')} = 0.0; return; }
  ${element(to, 'e')} = ${element(from, `((n * ${C} + c) * ${H} + y) * ${W} + z`)};`,
  )
}

/** Adjoint of unfold: each element of x sums the windows that show it, in ascending (p, q). */
export const foldWindowsKernel = (a: Operand, out: Operand, sizes: WindowSizes): Kernel => {
  const { N, C, H, W, KH, KW, OH, OW, strideY, strideX, padTop, padLeft, dilationY, dilationX } = sizes
  return elementwise(
    N * C * H * W,
    [out, a],
    ([to, from]) => `  let z = e % ${W};
  let y = e / ${W} % ${H};
  let c = e / ${W * H} % ${C};
  let n = e / ${W * H * C};
  var sum = 0.0;
  for (var p = 0; p < ${KH}; p++) {
    let down = y + ${padTop} - p * ${dilationY};
    if (down < 0 || down % ${strideY} != 0 || down / ${strideY} >= ${OH}) { continue; }
    for (var q = 0; q < ${KW}; q++) {
      let across = z + ${padLeft} - q * ${dilationX};
      if (across < 0 || across % ${strideX} != 0 || across / ${strideX} >= ${OW}) { continue; }
      let window = (n * ${OH} + down / ${strideY}) * ${OW} + across / ${strideX};
      sum += ${element(from, `((window * ${C} + c) * ${KH} + p) * ${KW} + q`)};
    }
  }
  ${element(to, 'e')} = sum;`,
  )
}
