import { assertions } from './assertions.ts'
import type { Scope, Variable } from './formula.ts'
import { casesOf, type Declared, type NetworkInterface, type Property } from './property.ts'
import { type Atom, fail, quote, type Scanner } from './scan.ts'

const MAX_ELEMENTS = 100_000_000

/** Element types by what they mean here. `Real` and `FLOAT` are spellings that are met. */
const TYPES: ReadonlyMap<string, 'real' | 'float32'> = new Map([
  ['real', 'real'],
  ['Real', 'real'],
  ['float32', 'float32'],
  ['Float32', 'float32'],
  ['FLOAT', 'float32'],
  ['float', 'float32'],
])

const NAME = /^[A-Za-z][A-Za-z0-9_]*$/

/**
 * A property in VNN-LIB 2.x: networks with their tensors, then assertions over their elements, such as X[0,3]. Files that were converted from 1.0 may declare
 * a shape [0] and then each element by itself, `(declare-fun X[0] () Real)`.
 */
export const readDeclarations = (s: Scanner, memory: number): Property => {
  s.open()
  s.atom('vnnlib-version')
  const version = s.atom('a version such as <2.0>')
  if (!/^<2\.\d+>$/.test(version.text)) fail(`expected version <2.0>, found ${quote(version.text)}`, version.at)
  s.close('the end of vnnlib-version')

  const networks: NetworkInterface[] = []
  const tensors = new Map<string, Declared>()
  let type: Property['type']
  let first: string | undefined
  const counts = { input: 0, other: 0 }

  const tensor = (kind: Declared['kind']): Declared => {
    const name = s.atom('the name of a tensor')
    if (!NAME.test(name.text))
      fail(`expected a name of letters, digits and underscores, found ${quote(name.text)}`, name.at)
    if (tensors.has(name.text)) fail(`${name.text} is declared twice`, name.at)
    const element = s.atom('an element type')
    const own = TYPES.get(element.text)
    if (own === undefined)
      return fail(
        `the element type ${quote(element.text)} of ${name.text} is not supported: bounds are sound for real and float32`,
        element.at,
      )
    if (type !== undefined && own !== type)
      fail(`${name.text} is ${element.text}, but ${first} is not: all tensors of a property have one type`, element.at)
    type = own
    first ??= name.text
    const at = s.at()
    const shape = s.indices() ?? fail(`expected the shape of ${name.text} in brackets, such as [1,5]`, at)
    const size = shape.reduce((n, d) => Math.min(n * d, 2 * MAX_ELEMENTS), 1)
    if (size > MAX_ELEMENTS) fail(`${name.text} has too many elements`, at)
    const node = kind === 'hidden' ? s.atom('the name of a node in double quotes') : undefined
    if (node !== undefined && !/^"(?:[^"\\]|\\["\\nt])*"$/.test(node.text))
      fail(`expected the name of a node in double quotes, found ${quote(node.text)}`, node.at)
    if (kind === 'input' && !s.isClose()) {
      const option = s.atom('the end of the declaration')
      if (option.text !== 'initialized')
        fail(`expected the end of the declaration, found ${quote(option.text)}`, option.at)
      fail(
        `${name.text} is initialized: inputs with a default value are not supported; constrain it by an assertion`,
        option.at,
      )
    }
    s.close('the end of the declaration')
    const declared: Declared = {
      name: name.text,
      kind,
      type: element.text,
      shape: size === 0 ? undefined : shape,
      first: kind === 'input' ? counts.input : counts.other,
      size,
      ...(node === undefined ? {} : { node: JSON.parse(node.text) as string }),
    }
    if (kind === 'input') counts.input += size
    else counts.other += size
    tensors.set(declared.name, declared)
    return declared
  }

  const network = (): void => {
    const name = s.atom('the name of a network')
    if (!NAME.test(name.text))
      fail(`expected a name of letters, digits and underscores, found ${quote(name.text)}`, name.at)
    if (networks.some((n) => n.name === name.text)) fail(`the network ${name.text} is declared twice`, name.at)
    let like: NetworkInterface['like']
    const own: Declared[] = []
    while (!s.isClose()) {
      s.open()
      const { text, at } = s.atom('a declaration')
      if (text === 'equal-to' || text === 'isomorphic-to') {
        const other = s.atom('the name of a network')
        if (like !== undefined) fail(`${name.text} is said to be like another network twice`, at)
        const known =
          networks.find((n) => n.name === other.text) ??
          fail(`there is no network ${quote(other.text)} before ${name.text}`, other.at)
        if (known.like?.kind === 'equal')
          fail(`${other.text} is itself equal to ${known.like.name}; refer to that one`, other.at)
        like = { kind: text === 'equal-to' ? 'equal' : 'isomorphic', name: other.text }
        s.close(`the end of ${text}`)
      } else if (text === 'declare-input' || text === 'declare-output' || text === 'declare-hidden')
        own.push(tensor(text.slice(8) as Declared['kind']))
      else
        fail(
          `expected declare-input, declare-hidden, declare-output, equal-to or isomorphic-to, found ${quote(text)}`,
          at,
        )
    }
    for (const kind of ['input', 'output'] as const)
      if (!own.some((t) => t.kind === kind)) fail(`the network ${name.text} declares no ${kind}`, name.at)
    if (like !== undefined) {
      const other = networks.find((n) => n.name === like?.name) as NetworkInterface
      const shapes = (n: readonly Declared[], kind: Declared['kind']) =>
        n
          .filter((t) => t.kind === kind)
          .map((t) => `[${t.shape ?? 0}]`)
          .join(' ')
      for (const kind of ['input', 'output'] as const)
        if (shapes(own, kind) !== shapes(other.tensors, kind))
          fail(
            `${name.text} is said to be like ${other.name}, but its ${kind}s are ${shapes(own, kind)}, not ${shapes(other.tensors, kind)}`,
            name.at,
          )
    }
    networks.push({ name: name.text, ...(like === undefined ? {} : { like }), tensors: own })
    s.close('the end of declare-network')
  }

  /** Elements of a tensor whose shape is not declared. */
  const elements = new Map<string, Set<number>>()
  const element = (): void => {
    const name = s.atom('an element such as X[0]')
    const indices = s.indices()
    const t = tensors.get(name.text)
    const [index] = indices ?? []
    if (t === undefined || t.shape !== undefined || indices?.length !== 1)
      fail(`expected an element of a tensor of shape [0], found ${quote(name.text)}`, name.at)
    const known = elements.get(name.text) ?? new Set()
    s.open()
    s.close('no arguments of a function in declare-fun')
    const sort = s.atom('the type of the tensor')
    if (TYPES.get(sort.text) !== type) fail(`expected ${t?.type}, found ${quote(sort.text)}`, sort.at)
    s.close('(declare-fun NAME[INDEX] () TYPE)')
    if (known.has(index)) fail(`${name.text}[${index}] is declared twice`, name.at)
    elements.set(name.text, known.add(index))
  }

  // Networks, and elements of theirs, come before assertions; only then it is known where each tensor begins.
  let asserted = false
  let layout: ReadonlyMap<string, Declared> = tensors
  const nameOf = (v: Variable): string => {
    const i = v >> 1
    const t = [...layout.values()].find(
      (d) => (d.kind === 'input') === (v % 2 === 0) && i >= d.first && i < d.first + d.size,
    )
    if (t === undefined) return `variable ${i}`
    let rest = i - t.first
    const indices = [...(t.shape ?? [t.size])].reverse().map((d) => {
      const k = rest % d
      rest = Math.floor(rest / d)
      return k
    })
    return indices.length === 0 ? t.name : `${t.name}[${indices.reverse().join(',')}]`
  }
  const scope: Scope = {
    variable: ({ text, at }: Atom, indices) => {
      const t = layout.get(text)
      if (t === undefined) return indices === undefined ? undefined : fail(`${text} is not declared`, at)
      const shape = t.shape ?? [t.size]
      const given = indices ?? []
      if (given.length !== shape.length)
        fail(`${text} has ${shape.length} axes, [${shape}], but ${given.length} indices are given`, at)
      const flat = given.reduce((n, i, k) => {
        if (i >= shape[k]) fail(`index ${i} of ${text} is outside its shape [${shape}]`, at)
        return n * shape[k] + i
      }, 0)
      return 2 * (t.first + flat) + (t.kind === 'input' ? 0 : 1)
    },
    nameOf,
    memory,
  }
  const { read, finish } = assertions(s, scope)

  /** The tensors with their elements counted, one after the other. */
  const laidOut = (): void => {
    const at = { input: 0, other: 0 }
    const placed = new Map<string, Declared>()
    for (const t of tensors.values()) {
      const known = elements.get(t.name)
      const size = t.shape === undefined ? (known?.size ?? 0) : t.size
      if (size === 0) fail(`${t.name} has no elements`)
      for (let i = 0; t.shape === undefined && i < size; i++)
        if (!known?.has(i)) fail(`${size} elements of ${t.name} are declared, but not ${t.name}[${i}]`)
      const side = t.kind === 'input' ? 'input' : 'other'
      placed.set(t.name, { ...t, first: at[side], size })
      at[side] += size
    }
    layout = placed
    counts.input = at.input
    counts.other = at.other
  }

  while (!s.isEnd()) {
    s.open()
    const { text: command, at } = s.atom('a command after the parenthesis')
    if (command === 'assert') {
      if (networks.length === 0) fail('no network is declared before this assertion', at)
      if (!asserted) laidOut()
      asserted = true
      if (s.isClose()) fail('assert takes one formula, found none', at)
      read(new Map())
      s.close('one formula in assert')
    } else if (command === 'declare-network' || command === 'declare-fun') {
      if (asserted) fail(`${command} comes after an assertion`, at)
      if (command === 'declare-network') network()
      else element()
    } else fail(`expected declare-network or assert, found ${quote(command)}`, at)
  }
  if (networks.length === 0) fail('no network is declared')
  if (!asserted) laidOut()
  return {
    version: 2,
    networks: networks.map((n) => ({ ...n, tensors: n.tensors.map((t) => layout.get(t.name) as Declared) })),
    type,
    inputs: counts.input,
    ...casesOf({ ...finish(s.at()), inputs: counts.input, outputs: counts.other, nameOf, memory }),
  }
}
