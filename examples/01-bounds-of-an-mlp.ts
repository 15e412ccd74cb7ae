// Bounds of a network by four methods: the same function, on a point and on a box.
import {
  add,
  ball,
  boundsOf,
  constant,
  crown,
  device,
  ibp,
  intersect,
  matmul,
  type Operand,
  program,
  relu,
  symbolic,
} from 'mixtrain'

const weights = { w1: [1, -1, 0.5, 1, 1, -0.5], b1: [0, 0.1, -0.2], w2: [1, -1, 1, 1, 0.5, -1] }
const mlp = <T extends Operand>(x: T): T => {
  const hidden = relu(add(matmul(x as Operand, constant(weights.w1, [2, 3])), constant(weights.b1, [3])))
  return matmul(hidden, constant(weights.w2, [3, 2])) as Operand as T
}

const all = program({ x: [1, 2], epsilon: [] }, ({ x, epsilon }) => {
  // Pixels have a range of [0, 1] unless another is named.
  const box = ball(x, epsilon)
  const by = (method: typeof crown) => boundsOf(method)(mlp, box).output()
  return {
    point: mlp(x),
    ibp: by(ibp),
    symbolic: by(symbolic),
    crown: by(crown),
    intersect: by(intersect(symbolic, ibp)),
  }
})

const { point, ...bounds } = await all.once(await device(), { x: [0.5, 0.5], epsilon: 0.2 })
const shown = (v: ArrayLike<number>) => Array.from(v, (a) => a.toFixed(3)).join(', ')
console.log(`outputs    ${shown(point)}`)
for (const [name, { lower, upper }] of Object.entries(bounds))
  console.log(`${name.padEnd(10)} from ${shown(lower)} to ${shown(upper)}`)

/* Prints:
outputs    1.100, -0.900
ibp        from 0.600, -1.400 to 1.900, -0.100
symbolic   from 0.663, -1.337 to 1.650, -0.350
crown      from 0.700, -1.300 to 1.650, -0.350
intersect  from 0.663, -1.337 to 1.650, -0.350
*/
