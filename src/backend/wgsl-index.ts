import { element, elementwise, type Kernel, type Operand } from './wgsl.ts'

/** Kernels whose every element finds its own operands: fill, gather, scatterAdd, argmax, compact, unfold, fold. */

const whole = (slot: number): Operand => ({ slot, offset: 0 })

/** A row number from f32 at an index expression: -1 for what names no row (negative, too large, NaN). */
const rowOf = (value: string, rows: number): string =>
  `i32(select(-1.0, ${value}, !broken(${value}) && rank(${value}) >= 0 && rank(${value}) < rank(${rows}.0)))`

/** `bits`: the f32 as the program has it, which may be NaN or infinite. */
export const fillKernel = (out: Operand, n: number, bits: number): Kernel =>
  elementwise(n, [out], ([to]) => `  var value = ${bits >>> 0}u;\n  ${element(to, 'e')} = bitcast<f32>(value);`)

/** out[i, :] = x[index[i], :], NaN where the index names no row. */
export const gatherKernel = ([x, index, out, n, rows, d]: readonly number[]): Kernel =>
  elementwise(
    n * d,
    [whole(out), whole(x), whole(index)],
    ([to, from, at]) => `  let named = ${element(at, `e / ${d}`)};
  let row = ${rowOf('named', rows)};
  if (row < 0) { ${element(to, 'e')} = quiet(); return; }
  ${element(to, 'e')} = ${element(from, `row * ${d} + e % ${d}`)};`,
  )

/** out[r, :] = sum of x[i, :] over ascending i with index[i] = r. */
export const scatterAddKernel = ([x, index, out, n, rows, d]: readonly number[]): Kernel =>
  elementwise(
    rows * d,
    [whole(out), whole(x), whole(index)],
    ([to, from, at]) => `  let r = e / ${d};
  let j = e % ${d};
  var sum = 0.0;
  for (var i = 0; i < ${n}; i++) {
    let named = ${element(at, 'i')};
    if (${rowOf('named', rows)} == r) { sum += ${element(from, `i * ${d} + j`)}; }
  }
  ${element(to, 'e')} = sum;`,
  )

/** out[o, i] = the first j with the largest x[o, j, i], the first NaN if there is one. */
export const argmaxKernel = ([x, out, outer, axis, inner]: readonly number[]): Kernel =>
  elementwise(
    outer * inner,
    [whole(out), whole(x)],
    ([to, from]) => `  let start = e / ${inner} * ${axis * inner} + e % ${inner};
  var best = ${element(from, 'start')};
  var found = 0;
  for (var j = 1; j < ${axis} && !broken(best); j++) {
    let v = ${element(from, `start + j * ${inner}`)};
    if (broken(v) || rank(v) > rank(best)) { best = v; found = j; }
  }
  ${element(to, 'e')} = f32(found);`,
  )

/** Coordinates of the elements of x that are not 0; one invocation, as each place depends on all before. */
export const compactKernel = ([x, out, n, , ...dims]: readonly number[]): Kernel =>
  elementwise(
    1,
    [whole(out), whole(x)],
    ([to, from]) => `  var found = 0;
  for (var i = 0; i < ${n}; i++) {
    let v = ${element(from, 'i')};
    if (!broken(v) && rank(v) == 0) { continue; }
    var rest = i;
${dims
  .map((d, k): readonly [number, number] => [d, k])
  .reverse()
  .map(([d, k]) => `    ${element(to, `${k * n} + found`)} = f32(rest % ${d});\n    rest /= ${d};`)
  .join('\n')}
    found++;
  }
  for (var i = found; i < ${n}; i++) {
${dims.map((_, k) => `    ${element(to, `${k * n} + i`)} = 0.0;`).join('\n')}
  }`,
  )

/** Windows of x: [N, C, H, W] -> [N, OH, OW, C, KH, KW], zero outside. */
export const unfoldKernel = (words: readonly number[]): Kernel => {
  const [x, out, N, C, H, W, KH, KW, OH, OW, strideY, strideX, padTop, padLeft, dilationY, dilationX] = words
  return elementwise(
    N * OH * OW * C * KH * KW,
    [whole(out), whole(x)],
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
export const foldWindowsKernel = (words: readonly number[]): Kernel => {
  const [a, out, N, C, H, W, KH, KW, OH, OW, strideY, strideX, padTop, padLeft, dilationY, dilationX] = words
  return elementwise(
    N * C * H * W,
    [whole(out), whole(a)],
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
