// A model as a safetensors file, and as an ONNX file that every runtime reads; both come back as they were.
import {
  decodeModel,
  decodeOnnx,
  encodeModel,
  encodeModelOnnx,
  key,
  type MixtrainError,
  networks,
  show,
} from 'mixtrain'

const network = networks.small({ input: [1, 28, 28], classes: 10 })
const model = { network, parameters: network.init(key(3)), provenance: undefined }

// Reading and writing of files gives an Either: what is wrong with a file is a value.
function right<A>(
  result: { readonly _tag: 'Left'; readonly left: MixtrainError } | { readonly _tag: 'Right'; readonly right: A },
): A {
  if (result._tag === 'Left') throw new Error(show(result.left))
  return result.right
}

const back = right(decodeModel(encodeModel(model), 'model.safetensors'))
const same = Object.entries(model.parameters).every(([name, values]) =>
  values.every((v, i) => v === back.parameters[name][i]),
)
console.log(`safetensors: network ${back.network.name}, the same weights: ${same}`)

const read = right(decodeOnnx(right(encodeModelOnnx(model)), 'model.onnx'))
console.log(`ONNX: input ${read.input.name} [${read.input.shape}], output ${read.output.name} [${read.output.shape}]`)

/* Prints:
safetensors: network small, the same weights: true
ONNX: input input [1,28,28], output output [10]
*/
