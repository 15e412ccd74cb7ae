import * as E from 'fp-ts/lib/Either.js'
import { type MixtrainError, usage } from '../core/error.ts'
import { equals, type Shape, show, size } from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import type { ConstantAttrs, Conv, InputAttrs, Matmul } from '../ops/index.ts'
import { order } from '../tape/tape.ts'
import { type AttributeValue, type NodeData, type TensorData, writeModel } from './onnx-proto.ts'

/** A network to be written: its graph, traced on an input `[n, ...]` of any batch n. */
export interface OnnxExport {
  readonly name: string
  readonly input: Tensor
  readonly output: Tensor
  /** Name and values of the nodes that stand for parameters; those that the output does not need are left out. */
  readonly parameters: ReadonlyMap<Tensor, { readonly name: string; readonly data: ArrayLike<number> }>
  readonly metadata?: Readonly<Record<string, string>>
}

/** The first opset with axes of ReduceSum and Squeeze as inputs; every runtime since 2020 has it. */
const OPSET = 13
const IR_VERSION = 8
/** Constants of at most this many elements are written once however often they occur. */
const SMALL = 64

/** What keeps a graph from being written. Caught in `encodeOnnx`. */
class Refused extends Error {
  constructor(readonly error: MixtrainError) {
    super()
  }
}

const refuse = (x: Tensor, reason: string): never => {
  throw new Refused({
    kind: 'unsupported',
    what: `exporting ${x.op.name}(${x.inputs.map((i) => show(i.shape)).join(', ')}) to ONNX`,
    reason,
  })
}

/** Ops that have an ONNX op of the same operands and no attributes. */
const SAME: Readonly<Record<string, string>> = {
  abs: 'Abs',
  add: 'Add',
  div: 'Div',
  exp: 'Exp',
  log: 'Log',
  maximum: 'Max',
  minimum: 'Min',
  mul: 'Mul',
  neg: 'Neg',
  relu: 'Relu',
  sigmoid: 'Sigmoid',
  sqrt: 'Sqrt',
  stopGradient: 'Identity',
  sub: 'Sub',
  tanh: 'Tanh',
}

const BROADCASTING = ['add', 'sub', 'mul', 'div', 'maximum', 'minimum']

type Attributes = Readonly<Record<string, AttributeValue>>

const isConstant = (x: Tensor): boolean => x.op.name === 'constant'
/** The value of a scalar constant. */
const scalarOf = (x: Tensor): number | undefined =>
  isConstant(x) && size(x.shape) === 1 ? (x.attrs as ConstantAttrs).data[0] : undefined

/** The nodes of one network, written in the order of its graph. */
const translate = ({ input, output, parameters }: Omit<OnnxExport, 'name' | 'metadata'>) => {
  const graph = order([output])
  const batch = input.shape[0]
  const nodes: NodeData[] = []
  const initializers: TensorData[] = []
  const names = new Map<Tensor, string>()
  const taken = new Set<string>()
  const uses = new Map<Tensor, number>()
  for (const x of graph) for (const i of x.inputs) uses.set(i, (uses.get(i) ?? 0) + 1)
  uses.set(output, (uses.get(output) ?? 0) + 1)

  const claim = (name: string): string => {
    if (name === '' || taken.has(name))
      throw new Refused(usage(`ONNX export: the name ${JSON.stringify(name)} is empty or used twice`))
    taken.add(name)
    return name
  }
  const fresh = (stem: string): string => {
    let name = stem
    while (taken.has(name)) name += '_'
    return claim(name)
  }

  const dependent = new Set<Tensor>([input])
  for (const x of graph) if (x.inputs.some((i) => dependent.has(i))) dependent.add(x)
  if (!dependent.has(output)) refuse(output, 'the output does not depend on the input')

  names.set(input, claim((input.attrs as InputAttrs).name))
  // Parameters keep their names; everything else gives way to them.
  for (const x of graph) {
    const p = parameters.get(x)
    if (p === undefined) continue
    if (p.data.length !== size(x.shape))
      throw new Refused(
        usage(`ONNX export: parameter ${JSON.stringify(p.name)} ${show(x.shape)} has ${p.data.length} elements`),
      )
    names.set(x, claim(p.name))
    initializers.push({ name: p.name, shape: x.shape, data: Float32Array.from(p.data) })
  }
  const outputName = fresh('output')

  const stored = new Map<string, string>()
  /** An initializer, shared where it is small. */
  const store = (shape: Shape, data: Float32Array | readonly bigint[], stem: string): string => {
    const key =
      data.length <= SMALL ? `${stem}${show(shape)}${[...data].map((v) => (Object.is(v, -0) ? '-0' : v))}` : ''
    const known = stored.get(key)
    if (key !== '' && known !== undefined) return known
    const name = fresh(`${stem}.${stored.size}`)
    stored.set(key === '' ? name : key, name)
    initializers.push({ name, shape, data })
    return name
  }
  const shapeInput = (values: readonly number[]): string => store([values.length], values.map(BigInt), 'shape')

  const ref = (x: Tensor): string => {
    const known = names.get(x)
    if (known !== undefined) return known
    if (!isConstant(x)) return refuse(x, 'it is neither the input nor a parameter of the network')
    const name = store(x.shape, Float32Array.from((x.attrs as ConstantAttrs).data), 'constant')
    names.set(x, name)
    return name
  }

  const emit = (x: Tensor, op: string, inputs: readonly string[], attributes: Attributes = {}): void => {
    const name = `${op}.${nodes.length}`
    const result = x === output ? outputName : fresh(name)
    names.set(x, result)
    nodes.push({ name, op, inputs, outputs: [result], attributes })
  }

  /** Nodes that are written as part of another. */
  const absorbed = new Set<Tensor>()
  const fused = new Map<Tensor, { readonly product: Tensor; readonly bias: Tensor }>()

  /** product + bias, where the product is used for nothing else: one Conv or Gemm with its third input. */
  const fuseBias = (sum: Tensor): void => {
    if (sum.op.name !== 'add') return
    const [product, b] = sum.inputs
    if (uses.get(product) !== 1 || dependent.has(b) || !dependent.has(product)) return
    if (product.op.name === 'matmul' && product.shape.length === 2 && equals(b.shape, [product.shape[1]])) {
      fused.set(sum, { product, bias: b })
    } else if (product.op.name === 'conv2d' && b.op.name === 'reshape' && b.inputs[0].shape.length === 1) {
      if (!equals(b.shape, [product.shape[1], 1, 1]) || parameters.has(b)) return
      fused.set(sum, { product, bias: b.inputs[0] })
      if (uses.get(b) === 1) absorbed.add(b)
    } else return
    absorbed.add(product)
  }

  /** mul(sum of windows, 1 / their size): a mean over windows, as averagePool2d builds it; max of windows as maxPool2d does. */
  const windows = (
    x: Tensor,
  ): { readonly image: Tensor; readonly g: Conv; readonly chain: readonly Tensor[] } | undefined => {
    const { axes } = x.attrs as { readonly axes: readonly number[] }
    const [flat] = x.inputs
    const turned = flat?.inputs[0]
    const unfolded = turned?.inputs[0]
    const fits =
      axes.length === 1 &&
      axes[0] === 4 &&
      x.shape.length === 4 &&
      flat.op.name === 'reshape' &&
      turned?.op.name === 'transpose' &&
      unfolded?.op.name === 'unfold' &&
      `${(turned.attrs as { permutation: readonly number[] }).permutation}` === '0,3,1,2,4,5' &&
      [flat, turned, unfolded].every((y) => uses.get(y) === 1)
    if (!fits) return undefined
    return { image: unfolded.inputs[0], g: unfolded.attrs as Conv, chain: [flat, turned, unfolded] }
  }
  const pools = new Map<Tensor, { readonly op: string; readonly image: Tensor; readonly g: Conv }>()
  const fusePool = (x: Tensor): void => {
    const mean = x.op.name === 'mul' && x.inputs[0].op.name === 'sum' && uses.get(x.inputs[0]) === 1
    if (!mean && x.op.name !== 'max') return
    const reduced = mean ? x.inputs[0] : x
    if ((reduced.attrs as { keep: boolean }).keep || !dependent.has(reduced)) return
    const found = windows(reduced)
    if (found === undefined) return
    const { image, g, chain } = found
    if (mean && scalarOf(x.inputs[1]) !== 1 / size(g.w)) return
    if (g.pad.some((p, i) => p >= g.w[i]) || after(g).some((p, i) => p >= g.w[i])) return
    // A maximum over zeros around the image is another function than MaxPool.
    if (!mean && [...g.pad, ...after(g)].some((p) => p > 0)) return
    if (mean && g.dilation.some((d) => d !== 1)) return
    pools.set(x, { op: mean ? 'AveragePool' : 'MaxPool', image, g })
    for (const y of mean ? [reduced, ...chain] : chain) absorbed.add(y)
  }

  for (const x of graph) {
    fuseBias(x)
    fusePool(x)
  }

  const keepsBatch = (x: Tensor): void => {
    if (x.shape[0] !== batch) refuse(x, 'it moves or merges the batch axis')
  }

  /** A convolution or matrix product, with its bias where there is one, as the node that computes `result`. */
  const product = (result: Tensor, x: Tensor, bias?: Tensor): void => {
    const [a, b] = x.inputs
    const inputs = [a, b, ...(bias === undefined ? [] : [bias])].map(ref)
    if (dependent.has(b)) refuse(x, 'its second operand depends on the input')
    if (x.op.name === 'conv2d') {
      const g = x.attrs as Conv
      emit(result, 'Conv', inputs, {
        dilations: { ints: g.dilation },
        group: { int: 1 },
        kernel_shape: { ints: g.w },
        pads: { ints: [...g.pad, ...after(g)] },
        strides: { ints: g.stride },
      })
      return
    }
    const { transA, transB } = x.attrs as Matmul
    if (a.shape.length !== 2) refuse(x, 'only products of matrices are supported')
    if (transA && dependent.has(a)) refuse(x, 'it moves the batch axis')
    emit(result, 'Gemm', inputs, {
      alpha: { float: 1 },
      beta: { float: 1 },
      ...(transA ? { transA: { int: 1 } } : {}),
      ...(transB ? { transB: { int: 1 } } : {}),
    })
  }

  const write = (x: Tensor): void => {
    const affine = fused.get(x)
    if (affine !== undefined) {
      product(x, affine.product, affine.bias)
      return
    }
    const { op, inputs, attrs } = x
    const moving = dependent.has(x)
    const pool = pools.get(x)
    if (pool !== undefined) {
      emit(x, pool.op, [ref(pool.image)], {
        ...(pool.op === 'AveragePool' ? { count_include_pad: { int: 1 } } : { dilations: { ints: pool.g.dilation } }),
        kernel_shape: { ints: pool.g.w },
        pads: { ints: [...pool.g.pad, ...after(pool.g)] },
        strides: { ints: pool.g.stride },
      })
      return
    }
    if (Object.hasOwn(SAME, op.name)) {
      if (moving && BROADCASTING.includes(op.name))
        for (const i of inputs) {
          const rank = x.shape.length
          if (
            dependent.has(i)
              ? i.shape.length !== rank
              : i.shape.length > rank || (i.shape.length === rank && i.shape[0] !== 1)
          )
            refuse(x, 'the operands do not leave the batch as the first axis')
        }
      emit(x, SAME[op.name], inputs.map(ref))
      return
    }
    switch (op.name) {
      case 'leakyRelu':
        emit(x, 'LeakyRelu', [ref(inputs[0])], { alpha: { float: (attrs as { slope: number }).slope } })
        return
      case 'conv2d':
      case 'matmul':
        product(x, x)
        return
      case 'reshape': {
        if (!moving) {
          emit(x, 'Reshape', [ref(inputs[0]), shapeInput(x.shape)])
          return
        }
        keepsBatch(x)
        const image = (s: Shape) => size(s.slice(1))
        if (image(x.shape) !== image(inputs[0].shape)) refuse(x, 'it moves or merges the batch axis')
        if (x.shape.length === 2) emit(x, 'Flatten', [ref(inputs[0])], { axis: { int: 1 } })
        else emit(x, 'Reshape', [ref(inputs[0]), shapeInput([0, ...x.shape.slice(1)])])
        return
      }
      case 'transpose': {
        const { permutation } = attrs as { readonly permutation: readonly number[] }
        if (moving && permutation[0] !== 0) refuse(x, 'it moves the batch axis')
        emit(x, 'Transpose', [ref(inputs[0])], { perm: { ints: permutation } })
        return
      }
      case 'broadcast': {
        if (moving) {
          keepsBatch(x)
          if (inputs[0].shape.length !== x.shape.length) refuse(x, 'it puts an axis before the batch')
        }
        emit(x, 'Expand', [ref(inputs[0]), shapeInput(moving ? [1, ...x.shape.slice(1)] : x.shape)])
        return
      }
      case 'pad': {
        const { before, after: behind } = attrs as {
          readonly before: readonly number[]
          readonly after: readonly number[]
        }
        if (moving && before[0] + behind[0] > 0) refuse(x, 'it pads the batch axis')
        emit(x, 'Pad', [ref(inputs[0]), shapeInput([...before, ...behind])], { mode: { string: 'constant' } })
        return
      }
      case 'sum':
      case 'max': {
        const { axes, keep } = attrs as { readonly axes: readonly number[]; readonly keep: boolean }
        if (moving && axes.includes(0)) refuse(x, 'it reduces the batch axis')
        if (axes.length === 0) emit(x, 'Identity', [ref(inputs[0])])
        else if (op.name === 'sum')
          emit(x, 'ReduceSum', [ref(inputs[0]), shapeInput(axes)], { keepdims: { int: Number(keep) } })
        else emit(x, 'ReduceMax', [ref(inputs[0])], { axes: { ints: axes }, keepdims: { int: Number(keep) } })
        return
      }
      default:
        refuse(x, 'there is no rule for this op')
    }
  }

  for (const x of graph) if (x.inputs.length > 0 && !absorbed.has(x) && !parameters.has(x)) write(x)
  if (names.get(output) !== outputName) {
    nodes.push({ name: `Identity.${nodes.length}`, op: 'Identity', inputs: [ref(output)], outputs: [outputName] })
  }
  return { nodes, initializers, input: ref(input), output: outputName }
}

/** Zeros after the last row and column that give a window its outputs: no more than needed. */
const after = (g: Conv): readonly [number, number] => {
  const need = (i: 0 | 1) =>
    Math.max(0, (g.y[i] - 1) * g.stride[i] + g.dilation[i] * (g.w[i] - 1) + 1 - g.x[i] - g.pad[i])
  return [need(0), need(1)]
}

/**
 * Encodes a network as an ONNX model (opset 13, IR version 8, batch `N`): `output` as a function of `input`, every op as the ONNX op
 * of the same meaning, a product and its bias as one Gemm or Conv. Parameters and constants are rounded to float32. The same
 * network gives the same bytes. What `decodeOnnx` makes of them computes the same numbers. Errors: an op without a rule, one that
 * does not keep the batch as the first axis, a leaf that is not among the parameters, a name used twice.
 */
export const encodeOnnx = (model: OnnxExport): E.Either<MixtrainError, Uint8Array> =>
  E.tryCatch(
    () => {
      const { input, output, name, metadata } = model
      if (input.op.name !== 'input' || input.shape.length < 2)
        throw new Refused(
          usage(
            `ONNX export: the input must be an input node of shape [n, ...], not ${input.op.name} ${show(input.shape)}`,
          ),
        )
      const { nodes, initializers, ...ends } = translate(model)
      return writeModel({
        name,
        opset: OPSET,
        irVersion: IR_VERSION,
        nodes,
        initializers,
        input: { name: ends.input, shape: ['N', ...input.shape.slice(1)] },
        output: { name: ends.output, shape: ['N', ...output.shape.slice(1)] },
        ...(metadata === undefined ? {} : { metadata }),
      })
    },
    (cause) => {
      if (cause instanceof Refused) return cause.error
      throw cause
    },
  )
