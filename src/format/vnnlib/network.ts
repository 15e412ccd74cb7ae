import * as E from 'fp-ts/lib/Either.js'
import { fileError, type MixtrainError } from '../../core/error.ts'
import * as S from '../../core/shape.ts'
import type { Apply, Operand } from '../../core/tensor.ts'
import { concat, reshape, slice } from '../../ops/index.ts'
import { type Subject, watching } from '../../verify/counterexample.ts'
import type { Declared, NetworkInterface, Property } from './property.ts'

const ofKind = (network: NetworkInterface, kind: Declared['kind']): readonly Declared[] =>
  network.tensors.filter((t) => t.kind === kind)
const sizeOf = (tensors: readonly Declared[]): number => tensors.reduce((n, t) => n + t.size, 0)

/** What does not fit between a network that a property declares and the one of a file. */
const misfit = (network: NetworkInterface, subject: Subject): string | undefined => {
  const [inputs, outputs] = [ofKind(network, 'input'), ofKind(network, 'output')]
  const who = network.name === '' ? 'the network' : `the network ${network.name}`
  for (const [what, tensors] of [
    ['input', inputs],
    ['output', outputs],
  ] as const)
    if (tensors.length !== 1)
      return `${network.name} declares ${tensors.length} ${what}s (${tensors.map((t) => t.name).join(', ')}); networks with one are supported`
  const sizes = [sizeOf(inputs), sizeOf(outputs), S.size(subject.input), subject.outputs]
  return sizes[0] === sizes[2] && sizes[1] === sizes[3]
    ? undefined
    : `the property has ${sizes[0]} inputs and ${sizes[1]} outputs${network.name === '' ? '' : ` of ${network.name}`}, but ${who} of the file has ${sizes[2]} and ${sizes[3]}`
}

/** A network of a file. */
export interface Model extends Subject {
  /** What a node of the file computes, by the name of its output; a Left where there is none, or none that is supported. */
  readonly hidden: (node: string) => E.Either<MixtrainError, Subject>
  /** The same without a softmax at its end, if it ends in one. */
  readonly logits?: () => E.Either<MixtrainError, Subject>
}

/** What is decided, and what the outputs of a counterexample are those of. */
export interface Question extends Subject {
  readonly whole: Subject
}

/** Whether all that constraints say is which of two outputs is the larger: a softmax, or a logarithm of one, keeps that in real arithmetic. */
const isOrder = ({ cases, watched }: Property): boolean =>
  watched.length === 0 &&
  cases.every(({ unsafe }) =>
    unsafe.every((u) =>
      u.every(
        ({ exact: { indices, coefficients: c, bound } }) => bound === 0n && indices.length === 2 && c[0] === -c[1],
      ),
    ),
  )

/**
 * What a property is about, as one network: several side by side, each on its part of the inputs, their hidden values and outputs one after the other, and then what is
 * `watched`. `models` are the networks by name; one that is equal to another is that one. In real arithmetic a property that compares outputs of a network that ends in a softmax
 * is decided of its logits.
 */
export const subjectOf = (
  property: Property,
  models: ReadonlyMap<string, Model>,
  path: string,
  { inReals }: { readonly inReals: boolean },
): E.Either<MixtrainError, Question> => {
  const left = (message: string) => E.left(fileError(path, message))
  /** Each hidden tensor and each output, with the input that it is a function of. */
  const parts: { readonly input: Declared; readonly subject: Subject }[] = []
  for (const network of property.networks) {
    const name = network.like?.kind === 'equal' ? network.like.name : network.name
    const model = models.get(name)
    if (model === undefined) return left(`no file is given for the network ${name}`)
    const wrong = misfit(network, model)
    if (wrong !== undefined) return left(wrong)
    const [input] = ofKind(network, 'input')
    for (const tensor of network.tensors) {
      if (tensor.kind === 'input') continue
      const found = tensor.node === undefined ? E.right(model) : model.hidden(tensor.node)
      if (E.isLeft(found)) return found
      if (found.right.outputs !== tensor.size)
        return left(
          `${tensor.name} has ${tensor.size} elements, but the node ${JSON.stringify(tensor.node)} of the file has ${found.right.outputs}`,
        )
      parts.push({ input, subject: found.right })
    }
  }
  const decided = (whole: Subject): Question => ({ ...whole, whole })
  if (parts.length === 1) {
    const whole = watching(parts[0].subject, property.watched)
    const [network] = property.networks
    const { logits } = models.get(network.name) ?? {}
    const isOutput = network.tensors.every((t) => t.kind !== 'hidden')
    return logits !== undefined && inReals && isOutput && isOrder(property)
      ? E.map((subject: Subject): Question => ({ ...subject, whole }))(logits())
      : E.right(decided(whole))
  }
  const whole = property.networks.length === 1 ? parts[0].subject.input : [property.inputs]
  const network: Apply = (x) => {
    const n = x.shape[0]
    const outputs = parts.map(({ input: { first, size }, subject }) => {
      const own =
        property.networks.length === 1
          ? (x as Operand)
          : reshape(slice(x as Operand, [0, first], [n, size]), [n, ...subject.input])
      return reshape(subject.network(own) as Operand, [n, subject.outputs])
    })
    return concat(outputs, 1) as typeof x
  }
  const outputs = parts.reduce((n, { subject }) => n + subject.outputs, 0)
  return E.right(decided(watching({ network, input: whole, outputs }, property.watched)))
}
