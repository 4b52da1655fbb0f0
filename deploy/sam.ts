/** The deployment for AWS SAM. */
import type { Deployment } from './deployment.ts'
import {
  failureMode,
  type FunctionName,
  type FunctionPlan,
  IDS,
  logGroupId,
  pascal,
  roleId,
} from './functions.ts'
import { attribute, type Value, type Values } from './template.ts'

export const samFunctionId = (name: FunctionName): string => `${pascal(name)}Function`

/** What every function runs on. */
export const SAM_GLOBALS = {
  Runtime: 'nodejs24.x',
  Architectures: ['arm64'],
  Handler: 'index.handler',
} as const

/** @param packages where the functions' zips are, seen from the template */
export function samTemplate({ stage, functions, resources, outputs }: Deployment, packages: string): Values {
  const perFunction = functions.map((plan): [string, Value] => [
    samFunctionId(plan.name),
    samFunction(plan, stage, packages),
  ])
  const plain = Object.entries(resources).map(([id, resource]): [string, Value] => [id, { ...resource }])
  return {
    AWSTemplateFormatVersion: '2010-09-09',
    Transform: 'AWS::Serverless-2016-10-31',
    Description: `sealgate ${stage.name}: failure mode ${failureMode(stage).environment['SEALGATE_FAILURE_MODE'] === 'partial' ? 'partial' : 'throw'}`,
    Globals: { Function: SAM_GLOBALS },
    Resources: { ...Object.fromEntries(perFunction), ...Object.fromEntries(plain) },
    Outputs: {
      ...outputs,
      KeysUrl: { Value: attribute(`${samFunctionId('keys')}Url`, 'FunctionUrl') },
    },
  }
}

function samFunction(
  plan: FunctionPlan,
  { keysUrl, network }: Deployment['stage'],
  packages: string,
): Values {
  return {
    Type: 'AWS::Serverless::Function',
    DependsOn: [...plan.dependsOn, logGroupId(plan.name)],
    Properties: {
      FunctionName: plan.functionName,
      CodeUri: `${packages}${plan.name}.zip`,
      Role: attribute(roleId(plan.name), 'Arn'),
      Timeout: plan.timeoutSeconds,
      MemorySize: plan.memoryMb,
      ReservedConcurrentExecutions: plan.reservedConcurrency,
      Environment: { Variables: plan.environment },
      ...(plan.tracingLayer === undefined ? {} : { Layers: [plan.tracingLayer], Tracing: 'Active' }),
      ...(plan.isInVpc
        ? {
            VpcConfig: {
              SubnetIds: network.subnets,
              SecurityGroupIds: [attribute(IDS.functionGroup, 'GroupId')],
            },
          }
        : {}),
      ...(plan.name === 'rotate'
        ? { Events: { Hourly: { Type: 'Schedule', Properties: { Schedule: 'rate(1 hour)' } } } }
        : {}),
      ...(plan.name === 'keys'
        ? { FunctionUrlConfig: { AuthType: keysUrl === 'public' ? 'NONE' : 'AWS_IAM' } }
        : {}),
    },
  }
}
