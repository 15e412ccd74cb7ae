// A network of your own: made of layers, printed, saved by what describes them, and read back without the program that made it.
import { decodeModel, encodeModel, key, orThrow } from 'mixtrain'
import * as nn from 'mixtrain/nn'

const { averagePool, conv, dense, flatten, leakyRelu, network, residual, sequential } = nn
const block = residual(sequential(conv(8, 3, 1, 1), leakyRelu(0.1), conv(8, 3, 1, 1)), sequential())
const mine = network('mine', sequential(conv(8, 4, 2, 1), leakyRelu(0.1), block, averagePool(2), flatten, dense(10)), {
  input: [1, 28, 28],
  classes: 10,
})

const bytes = encodeModel({ network: mine, parameters: mine.init(key(0)), provenance: undefined })
const { network: read } = orThrow(decodeModel(bytes, 'mine.safetensors'))
if (read.description !== undefined) console.log(`${read.name}: ${nn.showDescription(read.description)}`)
console.log(`${Object.keys(read.parameters).length} tensors of parameters`)

/* Prints:
mine: conv 8,4,2,1 - leakyRelu 0.1 - (conv 8,3,1,1 - leakyRelu 0.1 - conv 8,3,1,1) + (identity) - averagePool 2,2,0 - flatten - dense 10
8 tensors of parameters
*/
