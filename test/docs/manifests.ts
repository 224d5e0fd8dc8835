import { parseAllDocuments } from 'yaml';
import * as z from 'zod';

/**
 * What manifests of Kubernetes may say, as far as ours say it: its servers ignore or refuse a field
 * that they do not know, and a wrong security setting would go unnoticed.
 */
const name = z.string().regex(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/);
const labels = z.record(z.string(), z.string());
const metadata = z.strictObject({ name, labels: labels.optional() });
const quantity = z.string().regex(/^\d+(m|Ki|Mi|Gi|Ti)?$/);
const amounts = z.strictObject({ cpu: quantity.optional(), memory: quantity.optional() });
const port = z.int().min(1).max(65_535);

const probe = z.strictObject({
  httpGet: z.strictObject({ path: z.string().regex(/^\//), port: z.union([name, port]) }),
  periodSeconds: z.int().optional(),
  timeoutSeconds: z.int().optional(),
  failureThreshold: z.int().optional(),
});

const container = z.strictObject({
  name,
  image: z.string(),
  command: z.array(z.string()).optional(),
  args: z.array(z.string()).optional(),
  ports: z.array(z.strictObject({ name, containerPort: port })).optional(),
  startupProbe: probe.optional(),
  livenessProbe: probe.optional(),
  readinessProbe: probe.optional(),
  securityContext: z.strictObject({
    allowPrivilegeEscalation: z.literal(false),
    readOnlyRootFilesystem: z.literal(true),
    capabilities: z.strictObject({ drop: z.tuple([z.literal('ALL')]) }),
  }),
  resources: z.strictObject({
    requests: amounts,
    limits: z.strictObject({ memory: quantity }),
  }),
  volumeMounts: z.array(
    z.strictObject({
      name,
      mountPath: z.string().regex(/^\//),
      readOnly: z.literal(true).optional(),
    }),
  ),
});
export type Container = z.infer<typeof container>;

const volume = z.strictObject({
  name,
  emptyDir: z.strictObject({ medium: z.literal('Memory'), sizeLimit: quantity }).optional(),
  configMap: z.strictObject({ name }).optional(),
  secret: z.strictObject({ secretName: name, defaultMode: z.int().min(0).max(0o777) }).optional(),
});

const pod = z.strictObject({
  terminationGracePeriodSeconds: z.int(),
  automountServiceAccountToken: z.literal(false),
  enableServiceLinks: z.literal(false),
  shareProcessNamespace: z.literal(true),
  securityContext: z.strictObject({
    runAsNonRoot: z.literal(true),
    runAsUser: z.int().min(1),
    runAsGroup: z.int().min(1),
    fsGroup: z.int().min(1),
    fsGroupChangePolicy: z.literal('OnRootMismatch'),
    seccompProfile: z.strictObject({ type: z.literal('RuntimeDefault') }),
  }),
  initContainers: z.array(container),
  containers: z.array(container),
  volumes: z.array(volume),
});

export type Pod = z.infer<typeof pod>;

const MANIFESTS = z.tuple([
  z.strictObject({
    ...{ apiVersion: z.literal('v1'), kind: z.literal('ConfigMap'), metadata },
    data: z.record(z.string(), z.string()),
  }),
  z.strictObject({
    ...{ apiVersion: z.literal('v1'), kind: z.literal('Secret'), metadata },
    type: z.literal('Opaque'),
    stringData: z.record(z.string(), z.string()),
  }),
  z.strictObject({
    ...{ apiVersion: z.literal('v1'), kind: z.literal('Service'), metadata },
    spec: z.strictObject({
      clusterIP: z.literal('None'),
      selector: labels,
      ports: z.array(z.strictObject({ name, port, targetPort: z.union([name, port]) })),
    }),
  }),
  z.strictObject({
    ...{ apiVersion: z.literal('apps/v1'), kind: z.literal('StatefulSet'), metadata },
    spec: z.strictObject({
      serviceName: name,
      replicas: z.literal(1),
      selector: z.strictObject({ matchLabels: labels }),
      template: z.strictObject({ metadata: z.strictObject({ labels }), spec: pod }),
      volumeClaimTemplates: z.array(
        z.strictObject({
          metadata: z.strictObject({ name }),
          spec: z.strictObject({
            accessModes: z.tuple([z.literal('ReadWriteOncePod')]),
            resources: z.strictObject({ requests: z.strictObject({ storage: quantity }) }),
          }),
        }),
      ),
    }),
  }),
]);

/** The manifests of a file. @throws if it is not strict YAML, or has a field that is not known */
export function manifestsOf(text: string) {
  // Kubernetes reads YAML 1.1: 0400 is octal there.
  const documents = parseAllDocuments(text, { version: '1.1', strict: true, uniqueKeys: true });
  if (!Array.isArray(documents)) throw new Error('no YAML');
  const values = documents.map((document) => {
    const [fault] = [...document.errors, ...document.warnings];
    if (fault) throw fault;
    return document.toJS() as unknown;
  });
  const [configMap, secret, service, set] = MANIFESTS.parse(values);
  return { configMap, secret, service, set, pod: set.spec.template.spec };
}
