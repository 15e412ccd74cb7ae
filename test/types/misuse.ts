import type { Apply, Interval, Operand, Tensor } from '../../src/core/tensor.ts'
import { add, constant, conv2d, input, matmul, relu, reshape, scalar, sub, sum } from '../../src/ops/index.ts'

/**
 * Misuse that must not compile, and types that must come out. Checked by tsc in the build; nothing here runs.
 */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const is =
  <A>() =>
  <B>(_: B & (Same<A, B> extends true ? unknown : never)): void =>
    undefined

export const misuse = (box: Interval, point: Tensor, either: Operand): void => {
  const x = input('x', [32, 784])
  const w = input('w', [100, 10])

  // Shapes of rank 2 are known to the compiler.
  is<Tensor<readonly [32, 10]>>()(matmul(x, input('w', [784, 10])))
  // @ts-expect-error: inner dimensions 784 and 100 differ
  matmul(x, w)
  // @ts-expect-error: an array is no tensor
  matmul([[1, 2]], w)
  // @ts-expect-error: transposed operands are booleans, not numbers
  matmul(point, point, { transA: 1 })

  // The kind of the result follows the kinds of the operands.
  is<Interval>()(relu(box))
  is<Tensor>()(relu(point))
  is<Operand>()(relu(either))
  is<Interval>()(add(box, point))
  is<Interval>()(add(point, box))
  is<Interval>()(sub(1, box))
  is<Tensor>()(add(point, 1))
  is<Interval>()(matmul(box, point))
  is<Interval>()(conv2d(point, box))
  is<Interval>()(sum(box))
  is<Tensor<readonly [2, 3]>>()(reshape(point, [2, 3]))
  // @ts-expect-error: an interval is no tensor
  const tensor: Tensor = relu(box)
  // @ts-expect-error: a tensor is no interval
  const interval: Interval = relu(point)
  // @ts-expect-error: an interval has no graph of its own
  relu(box).inputs

  // Graphs are immutable.
  // @ts-expect-error: shapes are read-only
  point.shape[0] = 1
  // @ts-expect-error: inputs are read-only
  point.inputs.push(point)
  // @ts-expect-error: ends are read-only
  box.lower = point

  // Leaves.
  is<Tensor<readonly []>>()(scalar(1))
  is<Tensor<readonly [2]>>()(constant([1, 2], [2]))
  // @ts-expect-error: a shape is a list of numbers
  input('x', ['32'])
  // @ts-expect-error: an input has a name
  input([32, 784])

  // A network is one function on both kinds.
  const network: Apply = (y) => relu(y)
  is<Interval>()(network(box))
  is<Tensor>()(network(point))
  // @ts-expect-error: a function of tensors alone is no network
  const narrow: Apply = (y: Tensor) => relu(y)

  void [tensor, interval, narrow]
}
