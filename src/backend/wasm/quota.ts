/** The text of a file; undefined where there is none, or none that may be read. */
export type Reader = (path: string) => Promise<string | undefined>

/** A folder and those above it, up to `/`. */
const upwards = (folder: string): readonly string[] => {
  const names = folder.split('/').filter((name) => name !== '')
  return Array.from({ length: names.length + 1 }, (_, i) => `/${names.slice(0, names.length - i).join('/')}`)
}

const joined = (mount: string, folder: string): string => (folder === '/' ? mount : `${mount}${folder}`)

/** Cores of a quota and a period, both in microseconds; a quota that is not above 0 is none. */
const coresOf = (quota: number, period: number): number =>
  quota > 0 && period > 0 ? quota / period : Number.POSITIVE_INFINITY

/** Cores of `cpu.max`: `150000 100000`, or `max 100000`. */
const ofMax = (text: string | undefined): number => {
  const [, quota, period] = /^(\d+) (\d+)\s*$/.exec(text ?? '') ?? []
  return coresOf(Number(quota), Number(period))
}

interface Hierarchy {
  readonly version: 1 | 2
  /** The group of this process. */
  readonly group: string
}

/** The control groups of a process that may limit its processors: lines `0::/group` and `4:cpu,cpuacct:/group`. */
const hierarchies = (text: string): readonly Hierarchy[] =>
  text.split('\n').flatMap((line): readonly Hierarchy[] => {
    const [, id, controllers, group] = /^(\d+):([^:]*):(\/.*)$/.exec(line) ?? []
    if (group === undefined) return []
    if (id === '0' && controllers === '') return [{ version: 2, group }]
    return controllers.split(',').includes('cpu') ? [{ version: 1, group }] : []
  })

/** Where a hierarchy is mounted, and the group that is the root of that mount (a container sees part of it). */
const mountOf = (mounts: string, version: 1 | 2): { readonly at: string; readonly root: string } | undefined =>
  mounts
    .split('\n')
    .map((line) => {
      const [fields, type = ''] = line.split(' - ')
      const [, , , root, at] = fields.split(' ')
      const [kind, , options = ''] = type.split(' ')
      const fits = version === 2 ? kind === 'cgroup2' : kind === 'cgroup' && options.split(',').includes('cpu')
      return { root, at, fits }
    })
    .find(({ fits, at, root }) => fits && at !== undefined && root !== undefined)

/** A group as a folder below the mount; the mount itself where it is not below the mount's root. */
const within = (group: string, root: string): string =>
  root === '/' ? group : group === root ? '/' : group.startsWith(`${root}/`) ? group.slice(root.length) : '/'

/**
 * Cores that the control groups of this process grant it (Linux: `cpu.max` of version 2, `cpu.cfs_quota_us` and `cpu.cfs_period_us` of
 * version 1), the least of its own group and those above it; infinite where nothing is said, or nothing can be read.
 */
export const quota = async (read: Reader): Promise<number> => {
  const groups = hierarchies((await read('/proc/self/cgroup')) ?? '')
  if (groups.length === 0) return Number.POSITIVE_INFINITY
  const mounts = (await read('/proc/self/mountinfo')) ?? ''
  const limits = groups.flatMap(({ version, group }) => {
    const mount = mountOf(mounts, version) ?? { at: version === 2 ? '/sys/fs/cgroup' : '/sys/fs/cgroup/cpu', root: '/' }
    return upwards(within(group, mount.root)).map(async (folder) => {
      const path = joined(mount.at, folder)
      return version === 2
        ? ofMax(await read(`${path}/cpu.max`))
        : coresOf(Number(await read(`${path}/cpu.cfs_quota_us`)), Number(await read(`${path}/cpu.cfs_period_us`)))
    })
  })
  return Math.min(Number.POSITIVE_INFINITY, ...(await Promise.all(limits)))
}

/** Threads for so many cores: half a core more is worth another thread. */
export const threadsOf = (cores: number): number => Math.max(1, Math.round(cores))
