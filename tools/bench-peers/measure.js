// What every peer script does with its works: warm up, repeat, print the medians.
const median = (x) => x.sort((a, b) => a - b)[x.length >> 1]
const cpu = () => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e3
}

/** Prints one JSON line, {version, works: {name: {wall, cpu}}} in milliseconds; a work that throws is {error}. */
export const report = async (version, works, seconds, names) => {
  const result = {}
  for (const name of names.filter((n) => n in works)) {
    try {
      const once = await works[name]()
      await once()
      const [wall, busy, begun] = [[], [], performance.now()]
      while (wall.length < 3 || performance.now() - begun < seconds * 1e3) {
        const [t, c] = [performance.now(), cpu()]
        await once()
        wall.push(performance.now() - t)
        busy.push(cpu() - c)
        // A step that takes long is measured once.
        if (performance.now() - begun > 15e3) break
      }
      result[name] = { wall: median(wall), cpu: median(busy) }
    } catch (e) {
      result[name] = { error: String(e.message ?? e).slice(0, 200) }
    }
  }
  console.log(JSON.stringify({ version, works: result }))
}

/** Deterministic values in [-0.5, 0.5): speed must not depend on luck. */
export const values = (n, seed = 1) => {
  let state = seed
  return Float32Array.from({ length: n }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32 - 0.5
  })
}
