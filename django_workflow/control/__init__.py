"""What people do to runs, the same for the admin, the API and the commands: one by one (`actions`), many (`bulk`)."""
