// A bound is a graph, so it has a gradient: how fast a margin falls as epsilon grows.
import {
  ball,
  boundsOf,
  device,
  digits,
  grad,
  key,
  labelsOf,
  networks,
  pixels,
  program,
  rivals,
  sum,
  symbolic,
  type Tensor,
} from 'mixtrain'

const net = networks.small({ input: [1, 28, 28], classes: 10 })
const { test } = await digits()
const run = program({ ...net.inputs, x: [1, ...net.input], label: [1], epsilon: [] }, ({ x, label, epsilon, ...p }) => {
  const margins = boundsOf(symbolic)(net.apply(p), ball(x, epsilon)).rows(rivals(label, 10)).lower
  const [slope] = grad(sum(margins, [0, 1]) as Tensor, [epsilon])
  return { margins, slope }
})
const values = { ...net.init(key(1)), x: pixels(test, [0]), label: labelsOf(test, [0]) }
for (const epsilon of [0, 0.005, 0.01]) {
  const { margins, slope } = await run.once(await device(), { ...values, epsilon })
  const mean = Array.from(margins).reduce((a, b) => a + b) / margins.length
  console.log(
    `epsilon ${epsilon}: the mean margin is at least ${mean.toFixed(3)}, and falls by ${(-slope[0] / 9).toFixed(1)} for each 1 of epsilon`,
  )
}

/* Prints:
epsilon 0: the mean margin is at least -0.109, and falls by 1.2 for each 1 of epsilon
epsilon 0.005: the mean margin is at least -0.114, and falls by 1.2 for each 1 of epsilon
epsilon 0.01: the mean margin is at least -0.122, and falls by 1.9 for each 1 of epsilon
*/
