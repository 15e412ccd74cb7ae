// The page: events of the browser and of the workers go into `update`, its states are drawn, its effects are run.
import { type Client, connect, connectProver } from './client.ts'
import { byId, el } from './dom.ts'
import { decodeLink, encodeLink } from './link.ts'
import type { Point } from './pen.ts'
import { pictureOf } from './picture.ts'
import { CLASSES, type DeviceChoice, LOSSES, METHODS, type Method, SIDE, type TrainSettings } from './protocol.ts'
import { type Effect, type Event, initial, type State, TEST_PAGE, update } from './state.ts'
import { METHOD_NAMES } from './verdict.ts'
import { render } from './view.ts'

let state: State = decodeLink(initial, location.hash)
let drawn: State | undefined
let client: Client | undefined
let prover: ReturnType<typeof connectProver> | undefined

const reasonOf = (e: unknown): string => (e instanceof Error ? e.message : String(e))

// ---- effects -----------------------------------------------------------------------------------------------------------

const save = (name: string, bytes: Uint8Array<ArrayBuffer>): void => {
  const url = URL.createObjectURL(new Blob([bytes], { type: 'application/octet-stream' }))
  el('a', { href: url, download: name }).click()
  setTimeout(() => URL.revokeObjectURL(url), 10_000)
}

const perform = (effect: Effect) => {
  switch (effect.type) {
    case 'send':
      return client?.send(effect.message)
    case 'prove':
      prover ??= connectProver((message) => dispatch({ type: 'prover', message }))
      return prover.send(effect.message)
    case 'launch':
      client = connect(
        (message) => dispatch({ type: 'worker', message }),
        (why) => {
          client = undefined
          dispatch({ type: 'crashed', why, now: performance.now() })
        },
      )
      return
    case 'save':
      return save(effect.name, effect.bytes)
    case 'focus':
      if (!effect.ifLost || document.activeElement === document.body) byId(effect.id).focus({ preventScroll: true })
      return
    default:
      return effect satisfies never
  }
}

let linked: ReturnType<typeof setTimeout> | undefined
/** The address follows the state, once that rests. */
const link = (): void => {
  clearTimeout(linked)
  linked = setTimeout(() => history.replaceState(null, '', `#${encodeLink(state)}`), 300)
}

const dispatch = (event: Event): void => {
  const { state: after, effects } = update(state, event)
  state = after
  render(state, drawn)
  drawn = state
  for (const effect of effects) perform(effect)
  if (state.test !== undefined) link()
}

// ---- events of the browser -------------------------------------------------------------------------------------------------

for (let j = 0; j < CLASSES; j++) byId('label').append(el('option', { value: j }, String(j)))
byId('method').replaceChildren(...METHODS.map((m) => el('option', { value: m }, METHOD_NAMES[m])))

const on = <K extends keyof HTMLElementEventMap>(
  id: string,
  type: K,
  then: (e: HTMLElementEventMap[K], at: HTMLElement) => void,
): void => {
  const at = byId(id)
  at.addEventListener(type, (e) => then(e, at))
}
const contentOf = (id: string): string => byId<HTMLInputElement | HTMLSelectElement>(id).value

const pad = byId<HTMLCanvasElement>('pad')
const place = (e: PointerEvent): Point => {
  const box = pad.getBoundingClientRect()
  return [((e.clientX - box.left) / box.width) * SIDE - 0.5, ((e.clientY - box.top) / box.height) * SIDE - 0.5]
}
/** Where the pointer was while it draws. */
let last: Point | undefined
const drawTo = (e: PointerEvent): void => {
  const to = place(e)
  dispatch({ type: 'stroke', from: last ?? to, to })
  last = to
}
on('pad', 'pointerdown', (e) => {
  if (e.button !== 0) return
  pad.setPointerCapture(e.pointerId)
  drawTo(e)
})
on('pad', 'pointermove', (e) => {
  if (last === undefined) return
  for (const point of e.getCoalescedEvents?.() ?? []) drawTo(point)
  drawTo(e)
})
for (const end of ['pointerup', 'pointercancel'] as const)
  on('pad', end, () => {
    last = undefined
  })
const PAD_KEYS = ['ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown', ' ', 'Delete', 'Backspace']
on('pad', 'keydown', (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || !PAD_KEYS.includes(e.key)) return
  e.preventDefault()
  dispatch({ type: 'key', key: e.key, shift: e.shiftKey })
})
on('pad', 'blur', () => dispatch({ type: 'left-pad' }))

on('clear', 'click', () => dispatch({ type: 'clear' }))
on('centred', 'change', () => dispatch({ type: 'centre', on: byId<HTMLInputElement>('centred').checked }))
on('label', 'change', () =>
  dispatch({ type: 'label', label: contentOf('label') === '' ? undefined : Number(contentOf('label')) }),
)
on('epsilon', 'input', () => dispatch({ type: 'epsilon', epsilon: Number(contentOf('epsilon')) }))
on('method', 'change', () => dispatch({ type: 'method', method: contentOf('method') as Method }))
on('previous', 'click', () => dispatch({ type: 'turn', by: -TEST_PAGE }))
on('next', 'click', () => dispatch({ type: 'turn', by: TEST_PAGE }))

const picks = (target: EventTarget | null): HTMLButtonElement | undefined =>
  (target instanceof Element && target.closest<HTMLButtonElement>('button[data-index]')) || undefined
on('strip', 'click', (e) => {
  const button = picks(e.target)
  if (button !== undefined) dispatch({ type: 'pick', index: Number(button.dataset.index) })
})
on('strip', 'keydown', (e, group) => {
  const buttons = [...group.querySelectorAll('button')]
  const at = buttons.indexOf(picks(e.target) as HTMLButtonElement)
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key]
  if (at < 0 || step === undefined) return
  e.preventDefault()
  const to = buttons[(at + step + buttons.length) % buttons.length]
  to.focus()
  dispatch({ type: 'pick', index: Number(to.dataset.index) })
})

for (const name of ['radius', 'again', 'stop', 'download', 'prove'] as const)
  on(name, 'click', () => {
    if (name !== 'again' || byId<HTMLFormElement>('settings').reportValidity()) dispatch({ type: name })
  })
on('save-proof', 'click', () => dispatch({ type: 'save-proof' }))
on('save-network', 'click', () => dispatch({ type: 'save-network' }))
on('measure', 'click', () => dispatch({ type: 'measure', count: Number(contentOf('slice')) }))
on('notices', 'click', ({ target }) => {
  if (!(target instanceof HTMLElement)) return
  if (target.dataset.dismiss !== undefined) dispatch({ type: 'dismiss', text: target.dataset.dismiss })
  if (target.dataset.again !== undefined) dispatch({ type: 'launch' })
})

const inputs = ['loss', 'images', 'epochs', 'train-epsilon', 'k', 'balance', 'device'] as const
const settingsNow = (): TrainSettings => {
  const [loss, images, epochs, epsilon, k, balance, device] = inputs.map(contentOf)
  const least = (text: string) => Math.max(1, Math.round(Number(text)))
  return {
    device: device as DeviceChoice,
    loss: LOSSES.find((l) => l === loss) ?? 'mixtrain',
    epsilon: Number(epsilon),
    epochs: least(epochs),
    images: Number(images),
    k: least(k),
    balance: balance === '' ? undefined : Number(balance),
    seed: 0,
  }
}
const showSettings = ({ loss, images, epochs, epsilon, k, balance, device }: TrainSettings): void => {
  const values = [loss, images, epochs, epsilon, k, balance ?? '', device]
  inputs.forEach((id, i) => {
    byId<HTMLInputElement>(id).value = String(values[i])
  })
}
on('settings', 'input', () => dispatch({ type: 'settings', settings: settingsNow() }))
on('settings', 'submit', (e) => {
  e.preventDefault()
  dispatch({ type: 'submit' })
})

/** A button that opens a choice of files. */
const chooser = (
  button: string,
  input: string,
  then: (files: readonly File[]) => Promise<void>,
  what: string,
): void => {
  const file = byId<HTMLInputElement>(input)
  on(button, 'click', () => file.click())
  file.addEventListener('change', async () => {
    const chosen = [...(file.files ?? [])]
    file.value = ''
    if (chosen.length === 0) return
    try {
      await then(chosen)
    } catch (e) {
      dispatch({ type: 'notify', level: 'error', text: `${what}: ${reasonOf(e)}` })
    }
  })
}
const read = async (file: File) => ({ name: file.name, bytes: new Uint8Array(await file.arrayBuffer()) })
chooser('open', 'file', async ([file]) => dispatch({ type: 'file', ...(await read(file)) }), 'Not opened')
chooser(
  'check',
  'check-file',
  async (files) => dispatch({ type: 'check-files', files: await Promise.all(files.map(read)) }),
  'Not checked',
)
chooser(
  'upload',
  'picture-file',
  async ([file]) => dispatch({ type: 'picture', pixels: await pictureOf(file) }),
  'Not a picture that this browser reads',
)

on('link', 'click', async () => {
  const address = `${location.origin}${location.pathname}#${encodeLink(state)}`
  history.replaceState(null, '', address)
  try {
    await navigator.clipboard.writeText(address)
    dispatch({
      type: 'notify',
      level: 'info',
      text: 'The link is copied: it carries the image, ε, the method and how to train, not the network.',
    })
  } catch {
    dispatch({
      type: 'notify',
      level: 'info',
      text: 'The address of this page carries the image, ε, the method and how to train: copy it.',
    })
  }
})

new IntersectionObserver(([entry]) => dispatch({ type: 'compare', inView: entry.isIntersecting })).observe(
  byId('compare'),
)

showSettings(state.settings)
render(state, undefined)
drawn = state
perform({ type: 'launch' })
