// A model as a safetensors file, and as an ONNX file that every runtime reads; both come back as they were.
import { decodeModel, encodeModel, key, networks, orThrow } from 'mixtrain'
import * as onnx from 'mixtrain/onnx'

const network = networks.small({ input: [1, 28, 28], classes: 10 })
const model = { network, parameters: network.init(key(3)), provenance: undefined }

// Reading and writing of files gives an Either: what is wrong with a file is a value, which orThrow makes an exception of.
const back = orThrow(decodeModel(encodeModel(model), 'model.safetensors'))
const same = Object.entries(model.parameters).every(([name, values]) =>
  values.every((v, i) => v === back.parameters[name][i]),
)
console.log(`safetensors: network ${back.network.name}, the same weights: ${same}`)

const read = orThrow(onnx.decodeOnnx(orThrow(onnx.encodeModelOnnx(model)), 'model.onnx'))
console.log(`ONNX: input ${read.input.name} [${read.input.shape}], output ${read.output.name} [${read.output.shape}]`)

/* Prints:
safetensors: network small, the same weights: true
ONNX: input input [1,28,28], output output [10]
*/
