(defproject penstock "0.1.0"
  :description "The topology jar: what `sparse jar` packs for a Storm cluster"
  :resource-paths ["_resources"]
  :target-path "_build"
  :min-lein-version "2.0.0"
  :dependencies []
  :profiles {:provided {:dependencies [[org.apache.storm/storm-client "2.8.3"]]}})
