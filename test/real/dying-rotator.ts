/** Rotators that die: at any of their calls, before it lands, or when it has landed and before the answer. */
import type { RotationPlan, RotationPolicy } from '../../lib/keys/rotation.ts'
import { type RotationPorts, runRotation } from '../../lib/keys/rotation-steps.ts'
import { soon } from './world.ts'

class Died extends Error {
  override readonly name = 'Died'
}

/** Ports for one who has so many calls left. */
export function dying(ports: RotationPorts, callsLeft: number): RotationPorts {
  let left = callsLeft
  const call = <A extends unknown[], T>(asked: (...args: A) => Promise<T>) => {
    return async (...args: A): Promise<T> => {
      left--
      if (left < 0 || (left === 0 && Math.random() < 0.5)) throw new Died()
      const answer = await asked(...args)
      if (left === 0) throw new Died()
      return answer
    }
  }
  const { secrets, directory, users } = ports
  const { store } = directory
  return {
    ...ports,
    secrets: {
      read: (name, deadline) => secrets.read(name, deadline),
      find: call((...args) => secrets.find(...args)),
      stage: call((...args) => secrets.stage(...args)),
      promote: call((...args) => secrets.promote(...args)),
    },
    directory: {
      ...directory,
      store: {
        read: (etag, deadline) => store.read(etag, deadline),
        find: call((deadline) => store.find(deadline)),
        write: call((...args) => store.write(...args)),
      },
    },
    ...(users !== undefined && {
      users: {
        setPassword: call((...args) => users.setPassword(...args)),
        logIn: call((...args) => users.logIn(...args)),
        associate: call((...args) => users.associate(...args)),
      },
    }),
  }
}

/** What a run left to do; undefined where it died. */
export async function mortalRun(
  policy: RotationPolicy,
  ports: RotationPorts,
): Promise<RotationPlan | undefined> {
  try {
    return (await runRotation(policy, ports, soon())).plan
  } catch (error) {
    if (error instanceof Died) return undefined
    throw error
  }
}
