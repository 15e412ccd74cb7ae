import { type Cut, cutOf, movesOf, pieceSize, pitchAlongK, type Sizes, type Tile, tilesOf } from './tile.ts'
import { elementwise, entry, type Kernel, LANES, type Operand, type Ref, type Target } from './wgsl.ts'

/**
 * The tile kernel of matrix products and convolutions: out[z, row, col] = sum over k of a(z, row, k) b(z, k, col).
 *
 * A workgroup makes a tile of up to 128 x 128 results, each of its 256 invocations up to 8 x 8 of them in registers. Pieces of a and b, 8 or 16
 * steps of k deep, pass through workgroup memory as vec4: the next piece is on its way into registers while the sums of this one are made. For
 * four steps of k an invocation reads 8 + 8 vec4 and makes 256 multiply-adds of them. Where few tiles meet a long k, several
 * workgroups share a tile's k and a second dispatch adds their parts, always in the same order.
 */

interface Side {
  /** The index that runs along memory, four of which an invocation fetches at a time. */
  readonly along: 'k' | 'i'
  /** Body of fn(z, i, k) -> f32, i being the row or column. */
  readonly load: (ref: Ref) => string
  /** Body of fn(z, i, k) -> vec4<f32> along `along`, from a binding of vec4; present in a wide product. */
  readonly wide?: (ref: Ref) => string
}

/** What a product does to a sum before it is stored: relu(there + sum + bias), each part optional. */
export interface Finish {
  readonly bias?: { readonly operand: Operand; readonly along: 'row' | 'col' } | undefined
  readonly relu: boolean
  /** Adds to the result that is there: k was cut, and this is not its beginning. */
  readonly accumulate: boolean
}

export interface Product extends Sizes {
  readonly out: Operand
  readonly left: Operand
  readonly right: Operand
  /** Every binding is an array of vec4, results are stored four at a time: sides and extents along memory are multiples of four. */
  readonly wide: boolean
  readonly a: Side
  readonly b: Side
  /** Statements that declare `at`, the place of (z, row, col) in out, in units of the binding; they return where there is no such result. */
  readonly place: (ref: Ref, wide: boolean) => string
  readonly finish: Finish
}

/** Multiply-adds up to which one invocation per result is as fast as a block of them. */
const SMALL = 1 << 15

const range = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => i)
const lines = (xs: readonly string[], by = ''): string => xs.map((x) => by + x).join('\n')

const operandsOf = (p: Product): readonly Operand[] => [
  p.out,
  p.left,
  p.right,
  ...(p.finish.bias === undefined ? [] : [p.finish.bias.operand]),
]

/** fn store(z, row, col, value): finishes a sum and writes it. */
const storeFunction = (p: Product, wide: boolean, out: Ref, bias: Ref | undefined): string => {
  const { bias: added, relu, accumulate } = p.finish
  const index = added?.along === 'row' ? 'row' : wide ? 'col / 4' : 'col'
  const target = `${out.buffer}[at]`
  return `fn store(z: i32, row: i32, col: i32, value: ${wide ? 'vec4<f32>' : 'f32'}) {
${p.place(out, wide)}
  var v = value;
${lines(
  [
    ...(accumulate ? [`v = ${target} + v;`] : []),
    ...(bias === undefined ? [] : [`v = v + ${bias.buffer}[${bias.base} + ${index}];`]),
    ...(relu ? [`v = ${wide ? 'relu4' : 'relu'}(v);`] : []),
    `${target} = v;`,
  ],
  '  ',
)}
}`
}

const loadFunction = (name: 'a' | 'b', side: Side, ref: Ref): string =>
  `fn load_${name}(z: i32, i: i32, k: i32) -> f32 {
${side.load(ref)}
}`

/** fn fetch_a(z, i, k, end) -> four elements along memory, 0 where there are none. */
const fetchFunction = (p: Product, name: 'a' | 'b', side: Side, ref: Ref, extent: number): string => {
  const head = `fn fetch_${name}(z: i32, i: i32, k: i32, end: i32) -> vec4<f32> {`
  if (p.wide && side.wide !== undefined)
    return `fn load_${name}(z: i32, i: i32, k: i32) -> vec4<f32> {
${side.wide(ref)}
}
${head}
  if (i >= ${extent} || k >= end) { return vec4<f32>(); }
  return load_${name}(z, i, k);
}`
  const [i, k] = side.along === 'k' ? ['i', 'k + j'] : ['i + j', 'k']
  return `${loadFunction(name, side, ref)}
${head}
  var v = vec4<f32>();
${lines(
  range(4).map((j) => {
    const [at, step] = [i.replace('j', `${j}`), k.replace('j', `${j}`)]
    return `  if (${at} < ${extent} && ${step} < end) { v.${'xyzw'[j]} = load_${name}(z, ${at}, ${step}); }`
  }),
)}
  return v;
}`
}

/** One invocation per result and no workgroup memory. */
const directKernel = (p: Product): Kernel =>
  elementwise(
    p.batch * p.rows * p.cols,
    operandsOf(p),
    () => `  let col = e % ${p.cols};
  let row = e / ${p.cols} % ${p.rows};
  let z = e / ${p.cols * p.rows};
  var sum = 0.0;
  for (var k = 0; k < ${p.depth}; k++) { sum += load_a(z, row, k) * load_b(z, col, k); }
  store(z, row, col, sum);`,
    ([out, a, b, bias]) =>
      lines([loadFunction('a', p.a, a), loadFunction('b', p.b, b), storeFunction(p, false, out, bias)]),
  )

/**
 * A block of 4 x 4 results per invocation and no workgroup memory: for software adapters, which run invocations one after the other and where
 * tiles only take long to compile.
 */
const blockKernel = (p: Product): Kernel => {
  const [down, across] = [Math.ceil(p.rows / 4), Math.ceil(p.cols / 4)]
  const place = (name: 'row' | 'col', j: number) => `min(${name} + ${j}, ${(name === 'row' ? p.rows : p.cols) - 1})`
  const four = range(4)
  return elementwise(
    p.batch * down * across,
    operandsOf(p),
    () => `  let col = e % ${across} * 4;
  let row = e / ${across} % ${down} * 4;
  let z = e / ${across * down};
  var c = array<vec4<f32>, 4>();
  for (var k = 0; k < ${p.depth}; k++) {
    let b = vec4<f32>(${four.map((j) => `load_b(z, ${place('col', j)}, k)`).join(', ')});
${lines(
  four.map((j) => `c[${j}] += load_a(z, ${place('row', j)}, k) * b;`),
  '    ',
)}
  }
  for (var r = 0; r < 4 && row + r < ${p.rows}; r++) {
    for (var j = 0; j < 4 && col + j < ${p.cols}; j++) { store(z, row + r, col + j, c[r][j]); }
  }`,
    ([out, a, b, bias]) =>
      lines([loadFunction('a', p.a, a), loadFunction('b', p.b, b), storeFunction(p, false, out, bias)]),
  )
}

/** Adds the parts of each sum, and finishes it. */
const partsKernel = (p: Product, parts: number, partial: Operand): Kernel => {
  const [, , , ...bias] = operandsOf(p)
  const results = p.batch * p.rows * p.cols
  return elementwise(
    results,
    [p.out, partial, ...bias],
    ([, from]) => `  var sum = ${from.buffer}[${from.base} + e];
  for (var s = 1; s < ${parts}; s++) { sum += ${from.buffer}[${from.base} + s * ${results} + e]; }
  store(e / ${p.cols * p.rows}, e / ${p.cols} % ${p.rows}, e % ${p.cols}, sum);`,
    ([out, , added]) => storeFunction(p, false, out, added),
  )
}

/** Where a vec4 of a piece lies: the place of the one at row or column `i` and step `k`. */
type Put = (i: string, k: string) => string

/**
 * Rows, four steps of k at a time: `a{r}[j]` is row r at step j. Rows lie `ty` apart where they run along k, in groups of four where four lie side by
 * side. `share` declares row r, or with the first of a group all of it: just before it is used, so that few registers hold rows.
 */
const leftPiece = (p: Product, t: Tile): { readonly put: Put; readonly share: (r: number) => readonly string[] } => {
  const pitch = pitchAlongK(t)
  const height = t.ty * t.down
  return p.a.along === 'k'
    ? {
        put: (i, k) => `${i} * ${pitch} + ${k} / 4`,
        share: (r) => [`let a${r} = tile_a[(ty + ${r * t.ty}) * ${pitch} + q];`],
      }
    : {
        put: (i, k) => `${k} * ${height / 4} + ${i} / 4`,
        share: (r) => {
          const g = r / 4
          if (r % 4 !== 0) return []
          return [
            ...range(4).map((j) => `let s${g}_${j} = tile_a[(q * 4 + ${j}) * ${height / 4} + ty + ${g * t.ty}];`),
            ...range(4).map(
              (i) =>
                `let a${r + i} = vec4<f32>(${range(4)
                  .map((j) => `s${g}_${j}.${'xyzw'[i]}`)
                  .join(', ')});`,
            ),
          ]
        },
      }
}

/** Columns, four steps of k at a time: `b{j}_{g}` holds four columns side by side at step j. */
const rightPiece = (p: Product, t: Tile): { readonly put: Put; readonly share: readonly string[] } => {
  const pitch = pitchAlongK(t)
  const width = t.tx * t.across
  const groups = range(t.across / 4)
  if (p.b.along === 'i')
    return {
      put: (i, k) => `${k} * ${width / 4} + ${i} / 4`,
      share: range(4).flatMap((j) =>
        groups.map((g) => `let b${j}_${g} = tile_b[(q * 4 + ${j}) * ${width / 4} + tx + ${g * t.tx}];`),
      ),
    }
  // Every fourth column together: neighbouring invocations then read neighbouring rows of the piece.
  return {
    put: (i, k) => `((${i} & 3) * ${width / 4} + ${i} / 4) * ${pitch} + ${k} / 4`,
    share: groups.flatMap((g) => [
      ...range(4).map((c) => `let w${g}_${c} = tile_b[(${(c * width) / 4 + g * t.tx} + tx) * ${pitch} + q];`),
      ...range(4).map(
        (j) =>
          `let b${j}_${g} = vec4<f32>(${range(4)
            .map((c) => `w${g}_${c}.${'xyzw'[j]}`)
            .join(', ')});`,
      ),
    ]),
  }
}

/** Statements that bring the vec4s of the next piece into registers, and from there into workgroup memory. */
const movement = (name: 'a' | 'b', side: Side, tile: number, t: Tile, put: Put) => {
  const count = (tile * t.deep) / 4
  const inner = side.along === 'k' ? t.deep / 4 : tile / 4
  const first = name === 'a' ? 'row0' : 'col0'
  return range(movesOf(t, tile)).map((m) => {
    const unit = m === 0 ? 'lane' : `(lane + ${m * LANES})`
    const [i, k] =
      side.along === 'k'
        ? [`${unit} / ${inner}`, `${unit} % ${inner} * 4`]
        : [`${unit} % ${inner} * 4`, `${unit} / ${inner}`]
    const value = `${name}v${m}`
    const fetched = `fetch_${name}(z, ${first} + ${name}i${m}, next + ${name}k${m}, end)`
    const kept = `tile_${name}[${put(`${name}i${m}`, `${name}k${m}`)}] = ${value};`
    const all = count % LANES === 0
    return {
      places: [`let ${name}i${m} = ${i};`, `let ${name}k${m} = ${k};`],
      fetch: all
        ? [`let ${value} = ${fetched};`]
        : [`var ${value} = vec4<f32>();`, `if (${unit} < ${count}) { ${value} = ${fetched}; }`],
      keep: [all ? kept : `if (${unit} < ${count}) { ${kept} }`],
    }
  })
}

const tileKernel = (p: Product, { tile: t, parts }: Cut, partial: Operand | undefined): Kernel => {
  const [height, width] = [t.ty * t.down, t.tx * t.across]
  const [tilesDown, tilesAcross] = tilesOf(p, t)
  const tiles = tilesDown * tilesAcross
  const part = Math.ceil(p.depth / parts / t.deep) * t.deep
  const [left, right] = [leftPiece(p, t), rightPiece(p, t)]
  const moves = [...movement('a', p.a, height, t, left.put), ...movement('b', p.b, width, t, right.put)]
  const groups = range(t.across / 4)
  const results = range(t.down).flatMap((r) => groups.map((g) => `c${r}_${g}`))
  const row = p.a.along === 'k' ? `ty + r * ${t.ty}` : `(ty + r / 4 * ${t.ty}) * 4 + r % 4`
  const [out, , , ...bias] = operandsOf(p)
  const stores = (call: (col: string, v: string) => string) =>
    p.wide
      ? `if (col < ${p.cols}) { ${call('col', 'v')} }`
      : `for (var j = 0; j < 4; j++) { if (col + j < ${p.cols}) { ${call('col + j', 'v[j]')} } }`
  const step = p.wide ? 4 : 1
  return {
    operands: partial === undefined ? [out, p.left, p.right, ...bias] : [partial, p.left, p.right],
    groups: tiles * p.batch * parts,
    wide: p.wide,
    code: ([to, a, b, added]) => `var<workgroup> tile_a: array<vec4<f32>, ${pieceSize(t, height, p.a.along)}>;
var<workgroup> tile_b: array<vec4<f32>, ${pieceSize(t, width, p.b.along)}>;
${fetchFunction(p, 'a', p.a, a, p.rows)}
${fetchFunction(p, 'b', p.b, b, p.cols)}
${partial === undefined ? storeFunction(p, p.wide, to, added) : ''}
${entry(LANES)}
  let row0 = group % ${tilesDown} * ${height};
  let col0 = group / ${tilesDown} % ${tilesAcross} * ${width};
  let z = group / ${tiles} % ${p.batch};
  let part = group / ${tiles * p.batch};
  let tx = lane % ${t.tx};
  let ty = lane / ${t.tx};
  let begin = part * ${part};
  let end = min(${p.depth}, begin + ${part});
${lines(
  moves.flatMap((m) => m.places),
  '  ',
)}
${lines(
  results.map((c) => `var ${c} = vec4<f32>();`),
  '  ',
)}
  // The first round only fetches, the last one only sums.
  for (var next = begin; next < end + ${t.deep}; next += ${t.deep}) {
${lines(
  moves.flatMap((m) => m.fetch),
  '    ',
)}
    if (next > begin) {
      for (var q = 0; q < ${t.deep / 4}; q++) {
${lines(
  [
    ...right.share,
    ...range(t.down).flatMap((r) => [
      ...left.share(r),
      ...range(4).flatMap((j) => groups.map((g) => `c${r}_${g} += a${r}.${'xyzw'[j]} * b${j}_${g};`)),
    ]),
  ],
  '        ',
)}
      }
    }
    workgroupBarrier();
${lines(
  moves.flatMap((m) => m.keep),
  '    ',
)}
    workgroupBarrier();
  }
  if (part >= ${parts}) { return; }
  // Results leave by a loop over a local array: the statement of a store may be long, and unrolled it is most of what compiling takes.
  var results = array<vec4<f32>, ${results.length}>(${results.join(', ')});
  for (var r = 0; r < ${t.down}; r++) {
    let row = row0 + ${row};
    if (row >= ${p.rows}) { continue; }
    for (var g = 0; g < ${t.across / 4}; g++) {
      let col = col0 + (tx + g * ${t.tx}) * 4;
      let v = results[r * ${t.across / 4} + g];
      ${stores((col, v) =>
        partial === undefined
          ? `store(z, row, ${col}, ${v});`
          : `${to.buffer}[${to.base} + (((part * ${p.batch} + z) * ${p.rows} + row) * ${p.cols} + ${col}) / ${step}] = ${v};`,
      )}
    }
  }
}`,
  }
}

/** The kernels of a product: one dispatch, or two where k is split. */
export const productKernels = (p: Product, { scratch, direct, room }: Target): readonly Kernel[] => {
  const results = p.batch * p.rows * p.cols
  if (results === 0) return []
  const work = results * p.depth
  if (work <= direct) return [work <= SMALL ? directKernel(p) : blockKernel(p)]
  const cut = cutOf(p, Math.floor(room / results))
  if (cut.parts === 1) return [tileKernel(p, cut, undefined)]
  const partial: Operand = { slot: scratch(cut.parts * results), offset: 0 }
  return [tileKernel(p, cut, partial), partsKernel(p, cut.parts, partial)]
}
