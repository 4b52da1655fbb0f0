/** What serverless.yml takes from a stage. */
import type { Deployment } from './deployment.ts'
import { type FunctionName, functionPlans, IDS, pascal, serviceName } from './functions.ts'
import type { Stage } from './stage.ts'
import { attribute, type Value, type Values } from './template.ts'

/** As osls names functions in its template. */
export const oslsFunctionId = (name: FunctionName): string => `${pascal(name)}LambdaFunction`

/** @param packages where the functions' zips are, seen from serverless.yml */
export function serverlessValues({ stage, resources, outputs }: Deployment, packages: string): Values {
  return {
    region: stage.region,
    stackName: serviceName(stage),
    functions: Object.fromEntries(
      functionPlans(stage).map((plan) => [
        plan.name,
        {
          name: plan.functionName,
          timeout: plan.timeoutSeconds,
          memorySize: plan.memoryMb,
          reservedConcurrency: plan.reservedConcurrency,
          environment: plan.environment,
          dependsOn: plan.dependsOn,
          ...(plan.tracingLayer === undefined ? {} : { layers: [plan.tracingLayer], tracing: 'Active' }),
          artifact: `${packages}${plan.name}.zip`,
        },
      ]),
    ),
    vpc: vpcOf(stage),
    keysUrl: stage.keysUrl === 'public' ? {} : { authorizer: 'aws_iam' },
    resources: Object.fromEntries(
      Object.entries(resources).map(([id, resource]): [string, Value] => [id, { ...resource }]),
    ),
    outputs,
  }
}

const vpcOf = ({ network }: Stage): Values => ({
  subnetIds: network.subnets,
  securityGroupIds: [attribute(IDS.functionGroup, 'GroupId')],
})
