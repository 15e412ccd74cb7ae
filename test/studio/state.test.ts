import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { decodeLink, encodeLink } from '../../studio/link.ts'
import { type Bounds, PIXELS, SIDE } from '../../studio/protocol.ts'
import { type Event, initial, type Next, type State, update } from '../../studio/state.ts'
import { pageVerdict, shellOf } from '../../studio/verdict.ts'

// The page without a browser: its state after events, and what these ask for.

const LABELS = Uint8Array.from({ length: 40 }, (_, i) => i % 10)
const IMAGES = Uint8Array.from({ length: 40 * PIXELS }, (_, i) => (Math.floor(i / PIXELS) + i) % 256)
const READY: Event = {
  type: 'worker',
  message: {
    type: 'ready',
    threads: 2,
    isolated: true,
    gpu: undefined,
    images: IMAGES,
    labels: LABELS,
    natural: true,
  },
}

/** The state after events, and all of their effects. */
const after = (events: readonly Event[], from: State = initial): Next =>
  events.reduce<Next>(
    ({ state, effects }, event) => {
      const next = update(state, event)
      return { state: next.state, effects: [...effects, ...next.effects] }
    },
    { state: from, effects: [] },
  )

const BOUNDS: Bounds = {
  label: 0,
  prediction: 0,
  logits: [3, ...new Array(9).fill(0)],
  lower: new Array(10).fill(-1),
  upper: new Array(10).fill(4),
  margin: [0, ...new Array(9).fill(1)],
  verdict: 'certified',
}
const answer = ({ state }: Next, bounds: Bounds, id = state.asked): Event => ({
  type: 'worker',
  message: {
    type: 'bounds',
    id,
    slot: 'opened',
    question: {
      image: state.pad.pixels,
      label: 0,
      epsilon: state.epsilon,
      method: state.method,
    },
    bounds,
  },
})

test('the first test image is asked about, and a certified answer is said so', () => {
  const ready = after([READY])
  assert.is(ready.state.pad.picked, 0)
  assert.equal(
    ready.effects.map((e) => (e.type === 'send' ? e.message.type : e.type)),
    ['inspect'],
  )
  const { state } = after([answer(ready, BOUNDS)], ready.state)
  assert.is(pageVerdict(state).word, 'Certified: a 0')
})

test('no event changes a state that is there already', () => {
  const freeze = <A>(x: A): A => {
    // Typed arrays cannot be frozen; they are compared.
    if (typeof x === 'object' && x !== null && !ArrayBuffer.isView(x)) {
      Object.freeze(x)
      Object.values(x).forEach(freeze)
    }
    return x
  }
  const { state } = after([READY])
  const pixels = Float32Array.from(state.pad.pixels)
  freeze(state)
  const events: readonly Event[] = [
    { type: 'stroke', from: [3, 3], to: [20, 20] },
    { type: 'key', key: ' ', shift: false },
    { type: 'key', key: 'ArrowLeft', shift: true },
    { type: 'clear' },
    { type: 'epsilon', epsilon: 0.2 },
    { type: 'submit' },
    { type: 'notify', level: 'info', text: 'x' },
    { type: 'crashed', why: 'made to', now: 1 },
    answer({ state, effects: [] }, BOUNDS),
  ]
  for (const event of events) update(state, event)
  assert.equal(state.pad.pixels, pixels)
})

test('what is answered after the pad was cleared is not shown', () => {
  const ready = after([READY])
  const { state } = after([{ type: 'clear' }, answer(ready, BOUNDS, ready.state.asked)], ready.state)
  assert.equal(state.answers, {})
  assert.is(pageVerdict(state).word, 'The pad is empty')
})

test('an example stays in view until the attack on the next question is over', () => {
  const ready = after([READY])
  const open: Bounds = { ...BOUNDS, margin: [0, -1, ...new Array(8).fill(1)], verdict: 'open' }
  const adversarial = { image: new Float32Array(PIXELS), prediction: 7 }
  const found = after(
    [
      answer(ready, open),
      {
        type: 'worker',
        message: { type: 'attacked', id: ready.state.asked, slot: 'opened', adversarial },
      },
    ],
    ready.state,
  )
  assert.is(pageVerdict(found.state).word, 'Not certified: it can become a 7')
  const moved = after([{ type: 'epsilon', epsilon: 0.15 }], found.state)
  const searching = after([answer(moved, open)], moved.state)
  assert.is(pageVerdict(searching.state).kind, 'broken')
  const none: Event = {
    type: 'worker',
    message: { type: 'attacked', id: moved.state.asked, slot: 'opened', adversarial: undefined },
  }
  assert.is(pageVerdict(after([none], searching.state).state).kind, 'open')
})

test('a worker that crashes while it trains is started again and the run can go on; one that crashes again and again is not', () => {
  const running = after([READY, { type: 'submit' }])
  assert.is(running.state.phase, 'running')
  const crash = (now: number): Event => ({ type: 'crashed', why: 'no memory', now })
  const once = after([crash(0)], running.state)
  assert.equal(
    once.effects.map((e) => e.type),
    ['launch'],
  )
  assert.match(once.state.notices[0].text, /no memory.*Training can be started again/)
  const often = after(
    [1, 2, 3].flatMap((t) => [READY, crash(t)]),
    once.state,
  )
  assert.is(often.state.phase, 'down')
  assert.ok(often.state.notices.some(({ again }) => again))
})

test('comparisons are asked for while they are in view', () => {
  const compared = ({ effects }: Next) =>
    effects.map((e) => e.type === 'send' && e.message.type === 'inspect' && e.message.compare)
  const ready = after([READY])
  assert.equal(compared(ready), [false])
  const seen = after([{ type: 'compare', inView: true }], ready.state)
  assert.equal(compared(seen), [true])
  assert.equal(compared(after([{ type: 'epsilon', epsilon: 0.2 }], seen.state)), [true])
  const gone = after([{ type: 'compare', inView: false }], seen.state)
  assert.equal(compared(gone), [])
  assert.equal(compared(after([{ type: 'epsilon', epsilon: 0.2 }], gone.state)), [false])
})

test('only a certified image can be proved, and the claim is what was answered', () => {
  const ready = after([READY])
  assert.equal(after([{ type: 'prove' }], ready.state).effects, [])
  const shown = after([answer(ready, BOUNDS)], ready.state)
  const asked = after([{ type: 'prove' }, { type: 'epsilon', epsilon: 0.3 }], shown.state)
  const written = after([{ type: 'worker', message: { type: 'onnx', bytes: Uint8Array.of(1) } }], asked.state)
  const [effect] = written.effects
  assert.ok(effect.type === 'prove' && effect.message.type === 'prove')
  assert.equal(effect.message.epsilon, '0.1')
})

test('a link carries a test image, or a drawing byte by byte, and the settings', () => {
  const ready = after([READY, { type: 'pick', index: 23 }, { type: 'epsilon', epsilon: 0.055 }])
  const at = decodeLink(initial, encodeLink(ready.state))
  assert.equal([at.pad.picked, at.epsilon], [23, 0.055])
  const drawn = after(
    [
      { type: 'clear' },
      { type: 'stroke', from: [5, 5], to: [20, 22] },
      { type: 'method', method: 'crown' },
      { type: 'settings', settings: { ...initial.settings, loss: 'sabr', balance: 0.25 } },
    ],
    ready.state,
  ).state
  const back = decodeLink(initial, encodeLink(drawn))
  assert.equal(back.pad.pixels, drawn.pad.pixels)
  assert.equal([back.method, back.pad.drawn, back.settings], ['crown', true, drawn.settings])
  assert.match(shellOf(drawn), /--loss sabr .*\n.*\n?.*--balance 0.25/)
})

test('a link that says nonsense is read as far as it makes sense', () => {
  for (const fragment of [
    '#epsilon=9&method=best&image=-1&train-loss=none&train-epochs=1e9&train-k=0.5',
    '#drawing=!!!&label=12',
    '#drawing=AAAA',
    '#epsilon=NaN&train-balance=-1',
    '#%E0%A4%A',
    '',
  ]) {
    const state = decodeLink(initial, fragment)
    assert.equal(
      { ...state, pad: { ...state.pad, pixels: [...state.pad.pixels] } },
      { ...initial, pad: { ...initial.pad, pixels: new Array(SIDE * SIDE).fill(0) } },
      fragment,
    )
  }
  // A test image that is not there: the first one.
  assert.is(after([READY], decodeLink(initial, '#image=40')).state.pad.picked, 0)
})

test.run()
