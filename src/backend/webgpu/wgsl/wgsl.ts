/**
 * What all WGSL kernels have in common: how a kernel names its operands, how work is laid on a grid, and index arithmetic.
 * Every dimension and stride is written into the shader as a number; only where operands begin comes from a uniform, so that two
 * instructions of one shape share a pipeline wherever their operands lie.
 */

/** A place in a slot of the plan, in elements. */
export interface Operand {
  readonly slot: number
  readonly offset: number
  /** First and last element of the slot that a kernel may touch; all of them where this is not given. */
  readonly range?: readonly [number, number]
}

/** The range of an operand without elements. */
export const NOTHING: readonly [number, number] = [0, -1]

/** How a shader finds an operand: its first element is `buffer[base]`. */
export interface Ref {
  readonly buffer: string
  /** An i32 expression, in units of the binding's element (four f32 where the kernel is wide). */
  readonly base: string
}

/** One dispatch. Operand 0 is written, the others are read. */
export interface Kernel {
  readonly operands: readonly Operand[]
  /** Workgroups; laid on a grid of up to three dims where one does not hold them. */
  readonly groups: number
  /** Binds arrays of vec4<f32>; all operands then begin at multiples of four elements. */
  readonly wide: boolean
  /** Declarations and the entry point `main`. */
  readonly code: (refs: readonly Ref[]) => string
}

/** What kernels are made for. */
export interface Target {
  /** Takes scratch of so many elements for the instruction at hand, in one page where that holds them; gives the number of a slot. */
  readonly scratch: (length: number) => number
  /** The same target, what it takes being free again when it is done. */
  readonly nested: () => Target
  /** Elements that lie in one page. */
  readonly room: number
  /** Multiply-adds up to which a product is made without tiles; infinite for a software adapter, where tiles are only slow to compile. */
  readonly direct: number
}

/** Invocations of a workgroup: the most that every device has. */
export const LANES = 256

/** A grid of at least so many workgroups, at most `most` along a dim; undefined where three dims do not hold them. */
export const grid = (groups: number, most: number): readonly [number, number, number] | undefined => {
  const z = Math.ceil(groups / (most * most))
  const y = Math.ceil(groups / (most * z))
  return z > most ? undefined : [Math.ceil(groups / (y * z)), y, z]
}

/** The head of an entry point; `group` is the number of the workgroup and `lane` that of the invocation in it. */
export const entry = (lanes: number): string =>
  `@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group_at: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let lane = i32(local);
  let group = i32((group_at.z * grid.y + group_at.y) * grid.x + group_at.x);`

/** An entry point with one invocation per element; `e` is its number. `functions` stand before it. */
export const elementwise = (
  count: number,
  operands: readonly Operand[],
  body: (refs: readonly Ref[]) => string,
  functions: (refs: readonly Ref[]) => string = () => '',
): Kernel => {
  const groups = Math.ceil(count / LANES)
  return {
    operands,
    groups,
    wide: false,
    code: (refs) => `${functions(refs)}
${entry(LANES)}
  let e = group * ${LANES} + lane;
  if (e >= ${count}) { return; }
${body(refs)}
}`,
  }
}

/** The element of an operand at an index expression. */
export const element = (ref: Ref, index: string): string => `${ref.buffer}[${ref.base} + ${index}]`

/** One dim of an iteration, with the name of its index variable. */
export interface Axis {
  readonly name: string
  readonly extent: number
}

/** Statements that split the number `from` into one index per axis, the last one running fastest. Axes of extent 1 have no variable. */
export const unravel = (from: string, axes: readonly Axis[]): readonly string[] => {
  const real = axes.filter((a) => a.extent !== 1)
  const lines: string[] = []
  let rest = from
  for (let i = real.length - 1; i >= 0; i--) {
    const { name, extent } = real[i]
    if (i === 0) lines.push(`let ${name} = ${rest};`)
    else {
      lines.push(`let ${name} = ${rest} % ${extent};`, `let ${name}_ = ${rest} / ${extent};`)
      rest = `${name}_`
    }
  }
  return lines
}

/** start + sum of index times stride. */
export const address = (start: string, axes: readonly Axis[], strides: readonly number[]): string =>
  [
    start,
    ...axes.flatMap((a, i) =>
      a.extent === 1 || strides[i] === 0 ? [] : [strides[i] === 1 ? a.name : `${a.name} * (${strides[i]})`],
    ),
  ].join(' + ')

export const product = (xs: readonly number[]): number => xs.reduce((n, x) => n * x, 1)
