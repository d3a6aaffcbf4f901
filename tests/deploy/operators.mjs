// Reads objects of operators as JSON lines and says what is wrong with each, as a line with a list of texts.
//
// The packages' checks overlook fields that they do not know. Those are found by watching: a check reads every field that its
// schema names, whether it is there or not, and no other.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const HOME = pathToFileURL(`${process.env.DEPLOY_HOME}/node_modules/@kubernetes-models/`);
const PACKAGES = {
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
  "serving.knative.dev": "knative",
};
const OF_EVERY_OBJECT = new Set(["apiVersion", "kind", "metadata", "spec"]);

async function problems(object) {
  const [group, version] = object.apiVersion.split("/");
  const { [object.kind]: Kind } = await import(new URL(`${PACKAGES[group]}/${group}/${version}/${object.kind}.js`, HOME));
  const unread = [];
  const found = Object.keys(object).filter((key) => !OF_EVERY_OBJECT.has(key)).map((key) => `data has the unknown field ${key}`);
  const { proxy, report } = watched(object.spec, "data/spec", unread);
  const model = new Kind(object);
  // Behind the constructor, which copies what it is given.
  model.spec = proxy;
  try {
    model.validate();
  } catch (error) {
    found.push(error.message);
  }
  report();
  return found.concat(unread);
}

/** Stands for an object and notes what is read of it. Where nothing is, its schema leaves open what it has. */
function watched(object, path, unread) {
  const read = new Set();
  const children = new Map();
  const proxy = new Proxy(object, {
    get(target, key, receiver) {
      const value = Reflect.get(target, key, receiver);
      if (typeof key !== "string") return value;
      read.add(key);
      if (value === null || typeof value !== "object") return value;
      if (!children.has(key)) children.set(key, watched(value, `${path}/${key}`, unread));
      return children.get(key).proxy;
    },
  });
  const report = () => {
    if (read.size > 0 && !Array.isArray(object)) {
      const unknown = Object.keys(object).filter((key) => !read.has(key));
      unread.push(...unknown.map((key) => `${path} has the unknown field ${key}`));
    }
    for (const child of children.values()) child.report();
  };
  return { proxy, report };
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await problems(JSON.parse(line))));
}
