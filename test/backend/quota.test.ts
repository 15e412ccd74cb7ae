import * as fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { quota, threadsOf } from '../../src/backend/wasm/quota.ts'
import { concurrency } from '../../src/backend/wasm/threads.ts'

const cores = (files: Readonly<Record<string, string>>): Promise<number> => quota(async (path) => files[path])

const V2 = '30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n'
const V1 =
  '31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n' +
  '34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n' +
  '32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n'

test('version 2: cpu.max of the group and of those above it', async () => {
  const files = {
    '/proc/self/cgroup': '0::/user.slice/job\n',
    '/proc/self/mountinfo': V2,
    '/sys/fs/cgroup/user.slice/job/cpu.max': 'max 100000\n',
    '/sys/fs/cgroup/user.slice/cpu.max': '150000 100000\n',
  }
  assert.is(await cores(files), 1.5)
  assert.is(await cores({ ...files, '/sys/fs/cgroup/user.slice/job/cpu.max': '20000 50000\n' }), 0.4)
  // A group of another name that begins alike is not above it.
  assert.is(await cores({ ...files, '/sys/fs/cgroup/user/cpu.max': '1000 100000' }), 1.5)
})

test('version 2 in a container: the mount is the group, whatever it is called outside', async () => {
  const root = '30 23 0:26 /docker/12ab /sys/fs/cgroup ro - cgroup2 cgroup rw\n'
  for (const [group, mounts] of [
    ['/', V2],
    ['/docker/12ab', root],
    ['/../..', root],
  ])
    assert.is(
      await cores({
        '/proc/self/cgroup': `0::${group}\n`,
        '/proc/self/mountinfo': mounts,
        '/sys/fs/cgroup/cpu.max': '250000 100000\n',
      }),
      2.5,
      group,
    )
})

test('version 1: quota and period, where the controller is mounted; -1 is none', async () => {
  const files = {
    '/proc/self/cgroup': '9:name=systemd:/a\n4:memory:/a\n3:cpuset:/a\n2:cpu,cpuacct:/a/b\n0::/\n',
    '/proc/self/mountinfo': V1,
    '/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us': '-1\n',
    '/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us': '100000\n',
  }
  assert.is(await cores(files), Number.POSITIVE_INFINITY)
  const limited = {
    ...files,
    '/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us': '300000\n',
    '/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us': '100000\n',
  }
  assert.is(await cores(limited), 3)
  assert.is(await cores({ ...limited, '/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us': '' }), Number.POSITIVE_INFINITY)
})

test('nothing to be read, or nothing that can be understood, is no limit', async () => {
  assert.is(await cores({}), Number.POSITIVE_INFINITY)
  await fc.assert(
    fc.asyncProperty(fc.array(fc.string(), { minLength: 4, maxLength: 4 }), async ([groups, mounts, max, own]) => {
      const n = await quota(async (path) =>
        path === '/proc/self/cgroup' ? `${groups}\n0::/${own}` : path === '/proc/self/mountinfo' ? mounts : `max${max}`,
      )
      assert.is(n, Number.POSITIVE_INFINITY)
    }),
  )
})

test('threads for a quota: at least one, and half a core more is another', () => {
  assert.equal([0.1, 0.5, 1, 1.4, 1.5, 2, 3.6, 64].map(threadsOf), [1, 1, 1, 1, 2, 2, 4, 64])
})

test('this machine gives at least one thread', async () => {
  const n = await concurrency()
  assert.ok(Number.isInteger(n) && n >= 1, `${n}`)
  assert.is(await concurrency(), n)
})

test.run()
