# R's own MLflow package, from CRAN: install.packages("mlflow"). Which of two irises is it?
library(mlflow)

set.seed(0)
irises <- droplevels(subset(iris, Species != "setosa"))
held <- sample(nrow(irises), 25)

run <- mlflow_start_run()
model <- glm(Species ~ Petal.Length + Petal.Width, binomial, irises[-held, ])
likely <- predict(model, irises[held, ], type = "response") > 0.5
mlflow_log_metric("test_accuracy", mean(likely == (irises$Species[held] == "virginica")))
invisible(mlflow_end_run())

metrics <- mlflow_get_run(run_id = run$run_uuid)$metrics[[1]]
for (i in order(metrics$key)) cat(sprintf("%-34s %.4g\n", metrics$key[i], metrics$value[i]))
