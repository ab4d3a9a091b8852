// Makes the replica set, waits for its primary, and gives services a user who reaches their databases alone.
const { MONGODB_ROOT_PASSWORD, MONGODB_PASSWORD, MONGODB_DATABASE_PREFIX } = process.env;
const SERVICES = ["users", "checkpoints", "endpoints", "inference", "datasets", "training"];
const NOT_YET_INITIATED = 94;

const admin = new Mongo(
  `mongodb://root:${encodeURIComponent(MONGODB_ROOT_PASSWORD)}@mongo:27017/?authSource=admin&directConnection=true`,
).getDB("admin");

try {
  admin.adminCommand({ replSetGetStatus: 1 });
} catch (error) {
  if (error.code !== NOT_YET_INITIATED) throw error;
  admin.adminCommand({
    replSetInitiate: { _id: "sdfleet", members: [{ _id: 0, host: "mongo:27017" }] },
  });
}
while (!admin.hello().isWritablePrimary) sleep(200);

const roles = SERVICES.map((service) => ({
  role: "readWrite",
  db: `${MONGODB_DATABASE_PREFIX}_${service}`,
}));
const command = admin.getUser("sdfleet") ? "updateUser" : "createUser";
admin.runCommand({ [command]: "sdfleet", pwd: MONGODB_PASSWORD, roles });
if (!admin.getUser("sdfleet")) throw new Error("the user sdfleet was not made");
print("the replica set has a primary, and services have their user");
